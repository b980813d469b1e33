"""The terminal: tables, trees and live lines that show the content of files literally."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lab.errors import visible

ANNOUNCED_AFTER = 1.0  # seconds
UNCUT = 1000  # columns, for what is never cut to the width of a terminal: results are copied and searched for


@contextmanager
def announced(text: str, show: bool = True) -> Iterator[None]:
    """Print what is being done if it takes longer than a second."""
    timer = Timer(ANNOUNCED_AFTER, Terminal(quiet=not show, soft_wrap=True).print, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Terminal(Console):
    """A console without markup and emoji, which makes control characters visible."""

    def __init__(self, **options: Any) -> None:
        """Create it with the options of rich's Console."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render anything that rich shows."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
