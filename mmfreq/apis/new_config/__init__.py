"""A config for data of your own: what a folder or a list holds, and the config that trains on it."""
