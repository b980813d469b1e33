"""Parts of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def split_evenly(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split items into as few parts of at most `size` as possible, of about the same length."""
    parts = -(-len(items) // size)
    ends = [len(items) * part // parts for part in range(parts + 1)] if parts else [0]
    return [items[first:last] for first, last in pairwise(ends)]
