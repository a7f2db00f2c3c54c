"""`kresnets predict` by its old name."""

import sys

from kresnets_command import main

main(["predict", *sys.argv[1:]])
