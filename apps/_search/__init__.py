"""The parts of apps/search.py."""
