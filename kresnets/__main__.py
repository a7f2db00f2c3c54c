"""`python -m kresnets` is the command `kresnets`."""

import os
import sys

import kresnets_command

if __name__ == "__main__":
    # By now Python has imported the package, and Keras has its backend, which is the command's to choose: begin anew.
    os.execv(sys.executable, kresnets_command.command(*sys.argv[1:]))
