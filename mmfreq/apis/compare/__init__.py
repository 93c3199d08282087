"""Models side by side: figures, table, picture."""
