"""What makes the hosts run here: ops, safe checkpoints, checked data, runs without a GPU."""
