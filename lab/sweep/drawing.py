"""Draws the Trials of an Experiment, in several processes if they are many."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait

from lab.common.text import plural
from lab.errors import describe_exit, print_to_stderr, visible
from lab.launch.local import interrupts_ignored
from lab.run.directory import SweepDir, TrialDir

MIN_TRIALS = 8  # for each process
PROGRESS_SECONDS = 10.0  # between two lines on how many are drawn


def draw_trials(directory: SweepDir, again: bool = False) -> None:
    """Write trial.png of the Trials of an Experiment; a picture that cannot be drawn is reported on the terminal.

    Args:
        directory: of the Experiment.
        again: whether to draw pictures again that are newer than their Sessions.

    Raises:
        KeyboardInterrupt: the user stopped it. What is drawn is whole.
    """
    trials = [trial for trial in directory.trials() if trial.seeds() and (again or not _is_drawn(trial))]
    if not trials:
        return
    again_by = f"python -m lab report {shlex.quote(str(directory.path))}"
    leave = "" if again else f" Ctrl-C leaves that to: {again_by}"
    print(visible(f"\nDrawing {plural(len(trials), 'Trial')}.{leave}"), flush=True)
    start = time.time_ns()
    workers = min(len(os.sched_getaffinity(0)), -(-len(trials) // MIN_TRIALS))
    if workers == 1:
        _draw(trials)
        return
    context = get_context("forkserver")  # of a local sweep, it runs already
    context.set_forkserver_preload(["lab.analysis.plot_trial"])
    processes = [context.Process(target=_draw, args=(trials[first::workers],)) for first in range(workers)]
    try:
        with interrupts_ignored():
            for process in processes:
                process.start()
        while running := [process.sentinel for process in processes if process.is_alive()]:
            if not wait(running, PROGRESS_SECONDS):
                drawn = sum(trial.plot.exists() and trial.plot.stat().st_mtime_ns >= start for trial in trials)
                print(visible(f"{drawn} of {plural(len(trials), 'Trial')} drawn"), flush=True)
        for process in processes:
            process.join()
            if process.exitcode:
                problem = f"A process that draws Trials {describe_exit(process.exitcode)}."
                print_to_stderr(f"{problem} To draw them: {again_by}")
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()


def _is_drawn(trial: TrialDir) -> bool:
    """Return whether the picture of a Trial is newer than all of its Sessions."""
    files = [trial.session(seed).status for seed in trial.seeds()]
    changed = max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)
    return trial.plot.exists() and trial.plot.stat().st_mtime_ns > changed


def _draw(trials: Sequence[TrialDir]) -> None:
    from lab.analysis import draw_trial

    for trial in trials:
        try:
            draw_trial(trial)
        except Exception as error:  # of files that a user may have changed; the other Trials are drawn all the same
            print_to_stderr(f"{trial.plot} could not be drawn: {error}")
