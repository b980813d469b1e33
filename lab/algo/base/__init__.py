"""What algorithms are made of: what families of them share, and pure functions."""
