"""The error of everything that mmfreq refuses."""


class RefusedError(ValueError):
    """Input that would silently give a wrong number. The tools print the message as one line."""
