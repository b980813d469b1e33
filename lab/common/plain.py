"""Plain data, compared and written so that 1, 1.0, true and '1' stay apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

RESERVED = ("null", "true", "false", "~", "")  # texts that are written in quotes, as the bare word is another value


def canonical(value: Any) -> str:
    """Return a text that is the same for equal values alone; keys of a mapping may be in any order."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{key!r}: {canonical(item)}' for key, item in value.items()))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(canonical, value))}]"
    return repr(value)


def looks_like_another_value(text: str) -> bool:
    """Say whether a text, written bare, would be read as null, a truth value, a number, a list or a mapping."""
    try:
        float(text)
    except ValueError:
        return text.strip().lower() in RESERVED or text.startswith(("[", "{"))
    return True


def quote(text: str) -> str:
    """Write a text as a value in Hydra's grammar: in quotes, where a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def dump_yaml(value: Any) -> str:
    """Write plain data as YAML, in its order; texts that some readers take for numbers, as 1e3, are in quotes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Has a representer of its own."""

    Dumper.add_representer(
        str,
        lambda dumper, text: dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style="'" if looks_like_another_value(text) else None
        ),
    )
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested plain data by their full keys, joined with dots; a list is a leaf.

    Of what a file holds, a leaf that is asked for and missing is a LabError as before.
    """
    flat: dict[str, Any] = getattr(values, "empty", dict)()  # a Document knows its file
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
