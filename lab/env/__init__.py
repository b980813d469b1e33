"""Making, vectorising and normalising environments."""
