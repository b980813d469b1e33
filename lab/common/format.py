"""Numbers as people read them."""

from __future__ import annotations

import math


def format_number(value: float | None) -> str:
    """Write a number with one decimal or, below 10, with three digits; None is a dash."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value + 0.0:.3g}"


def format_duration(seconds: float) -> str:
    """Write a time as 0:42, 12:05 or 3:20:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_bytes(size: float) -> str:
    """Write a number of bytes as 999 bytes, 1.5 KB or 2.5 GB."""
    power = min(int(math.log10(max(size, 1)) // 3), 4)
    return f"{size / 1000**power:.3g} {('bytes', 'KB', 'MB', 'GB', 'TB')[power]}"
