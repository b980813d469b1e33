"""A stack of Sessions, from its first frame to its last."""
