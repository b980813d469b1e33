"""Imported by the process from which jobs are forked: signals to all of a terminal or a job are for the sweep.

Without that process, the sweep would take its jobs for dead.
"""

import signal

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
