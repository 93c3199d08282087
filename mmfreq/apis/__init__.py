"""The work of the commands: one file or folder for each."""
