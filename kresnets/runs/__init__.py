"""A run's folder: which files are in it, what state it is in, and how to go on with it or ask it afterwards."""
