"""Convert stock configs to frequency-domain ones."""
