"""Modified backbones: one module for each host, imported only where that host is used."""
