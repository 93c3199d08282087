"""What makes the hosts run here: ops without compiling, safe checkpoints, runs without a GPU."""
