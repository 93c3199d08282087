"""Hooks, the runner of the tools, and checks of checkpoints."""
from mmfreq.engine import hooks, runner

__all__ = ['hooks', 'runner']
