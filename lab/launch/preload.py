"""What every job would spend seconds on, done once in the process from which jobs are forked."""

from lab import session
from lab.analysis import plot_session
from lab.run.provenance import packages

__all__ = ["plot_session", "session"]

packages()
