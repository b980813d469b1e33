"""Deep-RL results from one spec: train, evaluate, analyze and reproduce."""

import os
from importlib import import_module

TYPE_CHECKING = False  # typing would be imported before __main__ leaves out the working directory, which may have one
if TYPE_CHECKING:
    from lab.api import Agent as Agent
    from lab.api import Evaluation as Evaluation
    from lab.api import Experiment as Experiment
    from lab.api import LabError as LabError
    from lab.api import Session as Session
    from lab.api import Trial as Trial
    from lab.api import find as find
    from lab.api import load as load
    from lab.api import results as results
    from lab.api import train as train

# Ask Intel's library for matrix products whose bits do not depend on where in memory a matrix lies: within a stack a
# Session's do not lie as they would alone (law 1). It costs no speed. The library reads it when it is first used.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"

API = (
    "Agent",
    "Evaluation",
    "Experiment",
    "LabError",
    "Session",
    "Trial",
    "find",
    "load",
    "results",
    "train",
)  # of lab.api


def __getattr__(name: str) -> object:
    """Import the Python API when it is first used, so that `import lab` is quick."""
    if name in API:
        return getattr(import_module("lab.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *API})
