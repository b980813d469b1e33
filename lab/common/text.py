"""Text: values, numbers and intervals for people, the command line and YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

RESERVED = ("null", "true", "false", "~", "")  # plain scalars that YAML does not read as a text
WHOLE_METRICS = (
    "frames_to_solve",
    "frames",
    "optimizer_steps",
    "episodes",
)  # written without decimals

MAX_SEEDS = 4  # that follow each other and are named one by one


def canonical(value: Any) -> str:
    """Return a text that only equal values give (1, 1.0, True and '1' differ); the order of keys does not matter."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{key!r}: {canonical(item)}' for key, item in value.items()))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(canonical, value))}]"
    return repr(value)


def format_value(value: Any, digits: int | None = None) -> str:
    """Format a value as it is typed on the command line; a text that looks like another value is quoted.

    Args:
        value: plain data.
        digits: the most significant digits of a number with a decimal point; None for all.
    """
    if value is None:
        return "null"
    if isinstance(value, str):
        return quote(value) if _needs_quotes(value) else value
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_format_item(item, digits)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_format_item(item, digits) for item in value)}]"
    if isinstance(value, float) and digits:
        text = f"{value:.{digits}g}"
        return f"{text}.0" if text.lstrip("-").isdigit() else text  # 1.0 is not 1
    return str(value).lower() if isinstance(value, bool) else str(value)


def _format_item(value: Any, digits: int | None) -> str:
    """Format a value in a list or a mapping, where some characters have a meaning."""
    return quote(value) if isinstance(value, str) and re.search(r"[^\w./-]", value) else format_value(value, digits)


def format_number(value: float | None, metric: str = "return") -> str:
    """Format a metric with one decimal, or three digits below 10; None is a dash."""
    if value is None:
        return "-"
    if metric in WHOLE_METRICS:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value + 0.0:.3g}"


def format_interval(estimate: Mapping[str, Any], metric: str = "return") -> str:
    """Format the interval of an estimate, or a dash if it has none, as with one seed."""
    low, high = (format_number(estimate[end], metric) for end in ("low", "high"))
    return "-" if estimate["low"] is None else f"[{low}, {high}]"


def format_estimate(estimate: Mapping[str, Any], metric: str = "return") -> str:
    """Format an estimate with its interval, if it has one."""
    value = format_number(estimate["value"], metric)
    return value if estimate["low"] is None else f"{value} {format_interval(estimate, metric)}"


def format_chance(estimate: Mapping[str, Any]) -> str:
    """Format a probability with its interval, if it has one, to two decimals."""
    value, low, high = ("-" if estimate[end] is None else f"{estimate[end]:.2f}" for end in ("value", "low", "high"))
    return value if estimate["low"] is None else f"{value} [{low}, {high}]"


def format_duration(seconds: float) -> str:
    """Format a time as 0:42, 12:05 or 3:20:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_bytes(size: float) -> str:
    """Format a number of bytes as 999 bytes, 1.5 KB or 2.5 GB."""
    power = min(int(math.log10(max(size, 1)) // 3), 4)
    return f"{size / 1000**power:.3g} {('bytes', 'KB', 'MB', 'GB', 'TB')[power]}"


def plural(count: int, noun: str) -> str:
    """Return `1 Trial` or `1,200 Trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_seeds(seeds: Sequence[int]) -> str:
    """Return `seed 1`, `seeds 1, 2 and 3` or, of many that follow each other, `seeds 1 to 9`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    texts = [[f"{run[0]} to {run[-1]}"] if len(run) > MAX_SEEDS else list(map(str, run)) for run in runs]
    *others, last = [text for run in texts for text in run]
    noun = "seed" if len(seeds) == 1 else "seeds"
    return f"{noun} {', '.join(others)} and {last}" if others else f"{noun} {last}"


def quote(text: str) -> str:
    """Quote a text for Hydra's grammar, where a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def _needs_quotes(text: str) -> bool:
    """Return whether a bare text would be read as null, a truth value, a number, a list or a mapping."""
    try:
        float(text)
    except ValueError:
        return text.strip().lower() in RESERVED or text.startswith(("[", "{"))
    return True


def dump_yaml(value: Any) -> str:
    """Write plain data as YAML in its own order; texts that some readers take for numbers, like 1e3, are quoted."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Keeps its own representer."""

    def represent(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _needs_quotes(text) else None)

    Dumper.add_representer(str, represent)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested plain data by their dotted keys; a list is a leaf.

    The leaves of a Document are a Document of the same file.
    """
    flat: dict[str, Any] = getattr(values, "empty", dict)()
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
