"""`kresnets search` by its old name."""

import sys

from kresnets_command import main

main(["search", *sys.argv[1:]])
