"""`kresnets finetune` by its old name."""

import sys

from kresnets_command import main

main(["finetune", *sys.argv[1:]])
