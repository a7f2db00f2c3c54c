"""The verbs of the command `kresnets`, one file each; `kresnets_command.py`, beside the package, names them."""
