"""Deep-RL results from one spec: train, evaluate, analyze and reproduce."""

import os

# Ask Intel's library for matrix products whose bits do not depend on where in memory a matrix lies: within a stack a
# Session's do not lie as they would alone (law 1). It costs no speed. The library reads it when it is first used.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
