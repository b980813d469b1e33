"""Training: one stack from first frame to last."""
