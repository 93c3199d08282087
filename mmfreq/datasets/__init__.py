"""Data sets for the hosts."""
