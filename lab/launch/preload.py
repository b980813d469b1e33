"""Imported by the process from which jobs are forked: does once what would take every job seconds."""

import signal
from importlib import import_module

# A signal to the whole terminal or cgroup is for the sweep, which would take its jobs for dead without this process.
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

for module in ("lab.session", "lab.analysis.plot_session"):
    import_module(module)
import_module("lab.run.provenance").packages()  # cached
