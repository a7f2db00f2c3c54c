"""`kresnets serve` by its old name."""

import sys

from kresnets_command import main

main(["serve", *sys.argv[1:]])
