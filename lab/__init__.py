"""Deep-RL results from one spec: train, evaluate, analyse and reproduce."""

__version__ = "0.1.0"
