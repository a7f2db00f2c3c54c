"""`kresnets compare` by its old name."""

import sys

from kresnets_command import main

main(["compare", *sys.argv[1:]])
