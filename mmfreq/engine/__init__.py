"""Hooks and the runner of the tools."""
