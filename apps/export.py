"""`kresnets export` by its old name."""

import sys

from kresnets_command import main

main(["export", *sys.argv[1:]])
