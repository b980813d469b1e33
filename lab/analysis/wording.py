"""How figures, Sessions and pieces of text are written in what is published."""

from __future__ import annotations

import re
from typing import Any

from lab.analysis.trial import Trial
from lab.errors import visible

WHOLE = ("frames_to_solve",)  # figures of which no decimal is written


def number(value: float | None, figure: str = "return") -> str:
    """Write a figure with a decimal or, below 10, three digits; a dash if there is none."""
    if value is None:
        return "-"
    if figure in WHOLE:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value + 0.0:.3g}"


def interval(estimate: dict[str, Any], figure: str = "return") -> str:
    """Write the interval of an estimate, or a dash where one seed gives none."""
    low, high = (number(estimate[end], figure) for end in ("low", "high"))
    return "-" if estimate["low"] is None else f"[{low}, {high}]"


def estimated(estimate: dict[str, Any], figure: str = "return") -> str:
    """Write an estimate, and its interval where it has one."""
    value = number(estimate["value"], figure)
    return value if estimate["low"] is None else f"{value} {interval(estimate, figure)}"


def of_sessions(trial: Trial) -> str:
    """Say how many of the Sessions of a Trial completed, as in `3 of 4 Sessions`."""
    return f"{len(trial.completed)} of {len(trial.sessions)} Session{'s' if len(trial.sessions) > 1 else ''}"


# An interval in brackets is no link, and an underscore within a word no mark: they are left as they are.
MARKS = re.compile(r"(?P<interval>\[[-\d.,e+ ]*\](?![(\[:]))|[\\|*`~\[\]]|(?<!\w)_|_(?!\w)")


def markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line and in one cell of a table."""
    text = MARKS.sub(lambda mark: mark["interval"] or f"\\{mark[0]}", visible(text))
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def fenced(lines: list[str], language: str = "") -> list[str]:
    """Return lines as a block of code in Markdown, which nothing in them ends."""
    longest = max(map(len, re.findall("`+", "\n".join(lines))), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *map(visible, lines), fence]


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table, of cells that are Markdown already."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
