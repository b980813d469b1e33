"""The terminal: tables, trees and live lines that show the content of files literally."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lab.common.output import columns, join_copied
from lab.errors import visible

ANNOUNCED_AFTER = 1.0  # seconds
MIN_WIDTH = 20  # columns of a text
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

    def print(self, *objects: Any, hang: int = 0, no_wrap: bool | None = None, **options: Any) -> None:
        """Print objects. Texts are broken between words where the width is known, unless `no_wrap` keeps them whole.

        `hang` is the number of spaces before the lines of a text after its first.
        """
        width = None if no_wrap else columns(self.file)
        shown = [self._break(each, width, hang) if width and isinstance(each, str | Text) else each for each in objects]
        super().print(*shown, no_wrap=no_wrap, **options)

    def _break(self, text: str | Text, width: int, hang: int) -> Text:
        lines = []
        for line in (Text(text) if isinstance(text, str) else text).split(allow_blank=True):
            parts = line.divide(_break_points(line.plain, width, max(width - hang, MIN_WIDTH)))
            for part in parts:
                part.rstrip()
            lines.append(Text("\n" + " " * hang).join(parts))
        return Text("\n").join(lines)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render anything that rich shows."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def _break_points(text: str, width: int, rest: int) -> list[int]:
    """Return where a line is broken: before words that would go beyond the width, which is another after the first."""
    points, start = [], 0
    for word in re.finditer(r"\s*\S+", join_copied(text)):
        if cell_len(text[start : word.end()]) > width and word.start() > start:
            start = word.end() - len(word[0].lstrip())
            points.append(start)
            width = rest
    return points
