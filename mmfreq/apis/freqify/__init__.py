"""Stock configs made frequency-domain ones."""
