"""What the commands do, one file or folder a command."""
