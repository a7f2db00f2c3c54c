"""What `apps/bench.py` measures, a file for each command or thing that commands share."""
