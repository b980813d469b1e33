"""Drawing Trials while others run: in one process beside the sweep, which has better things to do."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from types import TracebackType

from lab.errors import visible
from lab.launch.processes import end_with_parent, fork_server
from lab.run.directory import TrialDir


class Drawing:
    """Draws Trials one after the other; leaving it waits for the last."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=fork_server(), initializer=begin)
        self._drawings: dict[Future[None], TrialDir] = {}

    def draw(self, directory: TrialDir) -> None:
        """Draw the picture of a Trial some time soon."""
        try:
            self._drawings[self._pool.submit(draw, directory)] = directory
        except BrokenExecutor:  # its process was killed; `report` draws what is missing
            print(visible(f"{directory.plot} could not be drawn."), file=sys.stderr)

    def __enter__(self) -> Drawing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=error is None, cancel_futures=error is not None)
        for drawing, directory in self._drawings.items() if error is None else ():
            problem = drawing.exception()
            if problem:
                print(visible(f"{directory.plot} could not be drawn: {problem}"), file=sys.stderr)


def begin() -> None:
    """Prepare the drawing process: it ends with the sweep, and Ctrl-C is for the sweep to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def draw(directory: TrialDir) -> None:
    """Draw the picture of a Trial."""
    from lab.analysis import draw_trial

    draw_trial(directory)
