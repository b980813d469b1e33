"""Making, vectorizing, checking and normalizing environments."""
