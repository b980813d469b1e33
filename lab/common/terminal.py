"""The terminal: tables, trees and live lines that show what files hold as it is, and never obey it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lab.errors import visible


class Terminal(Console):
    """A console for which every text is data: no markup, no emoji, and control characters are made visible."""

    def __init__(self, **options: Any) -> None:
        """Make it; options are those of rich's console."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render something, as rich does for all that it shows."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
