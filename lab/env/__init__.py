"""Making, vectorising, checking and normalising environments."""
