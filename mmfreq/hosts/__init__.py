"""What makes the hosts run here: ops, safe checkpoints, distributed runs."""
