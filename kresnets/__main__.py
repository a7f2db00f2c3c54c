"""`python -m kresnets` is the command `kresnets`."""

from kresnets_command import main

if __name__ == "__main__":
    main()
