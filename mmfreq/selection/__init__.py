"""Learning which channels a network needs (Xu et al. 2020, Section 3.3)."""
