"""Arguments of the commands beside training: run directories, and options as key=value."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

from lab.common import output
from lab.common.text import format_value
from lab.common.validation import validate
from lab.errors import LabError, did_you_mean, visible

WIDTH = 120  # columns of a usage text, at most


@dataclass
class NoOptions:
    """The options of a command that has none."""


def option(default: Any, description: str, shown: str | None = None) -> Any:
    """Return the field of an option.

    Args:
        default: its value if it is not given.
        description: what it means, for the usage text.
        shown: what stands in the usage text instead of `key=default`.
    """
    return field(default=default, metadata={"description": description, "shown": shown})


def command(
    directory: str,
    options: type[Any] = NoOptions,
    notes: str = "",
    several: bool = False,
    overrides: str = "",
    conditions: str = "",
    default: str = "",
) -> Callable[[Callable[..., None]], Callable[[Sequence[str]], None]]:
    """Turn a function of a path and options into one of the arguments on the command line.

    The path is a list of paths if there may be several. With --help, and without arguments unless there is a default,
    the usage is printed.

    Args:
        directory: what the run directory is, for the usage text.
        options: a dataclass with a field by `option` for each; a flag is written --NAME.
        notes: the end of the usage text.
        several: whether there may be several directories.
        overrides: what overrides of the config mean to the command, which gets them unread before its options.
        conditions: what conditions mean to the command, which gets their texts after the options.
        default: the directory if none is given.
    """

    def decorate(function: Callable[..., None]) -> Callable[[Sequence[str]], None]:
        name = function.__module__.rpartition(".")[2]
        known = [each.name for each in fields(options)]

        @wraps(function)
        def main(arguments: Sequence[str]) -> None:
            if not (arguments or default) or {"-h", "--help"} & {*arguments}:
                print(visible(_usage(name, directory, options, notes, several, overrides or conditions, default)))
                return
            if overrides:
                own = [argument for argument in arguments[1:] if argument.partition("=")[0] in known]
                others = [argument for argument in arguments[1:] if argument not in own]
                function(Path(arguments[0]), others, *([options(**_read(options, own, name))] if known else []))
                return
            pairs = [_as_pair(argument) for argument in arguments if _is_option(argument)]
            paths = [Path(argument) for argument in arguments if not _is_option(argument)]
            texts: list[str] = []
            if conditions:
                names = {each.name for each in fields(options)}
                texts = [argument for argument in arguments if _is_condition(argument, names)]
                pairs = [pair for pair in pairs if pair not in texts]
                paths = [path for path in paths if str(path) not in texts]
            paths = paths or [Path(default)] * bool(default)
            if not paths:
                raise LabError(f"{name}: the run directory is missing: python -m lab {name} DIR {' '.join(arguments)}")
            extra = [] if several else list(map(str, paths[1:]))
            if extra and Path(extra[0]).exists():
                raise LabError(f"{name} takes one directory, and {paths[0]} and {extra[0]} are two: give it once each.")
            chosen = options(**_read(options, [*extra, *pairs], name))
            function(paths if several else paths[0], chosen, *([texts] if conditions else []))

        return main

    return decorate


def _is_option(argument: str) -> bool:
    """Return whether an argument is an option; Hydra's names for directories hold equals signs too."""
    return argument.startswith("--") or (re.match(r"\w+=", argument) is not None and not Path(argument).exists())


def _is_condition(argument: str, options: set[str]) -> bool:
    """Return whether an argument is a condition of lab.analysis.conditions rather than a path or an option."""
    match = re.match(r"([A-Za-z_][\w.]*)\s*(!=|[<>]=?|=)", argument)
    return bool(match and not (match[2] == "=" and match[1] in options) and not Path(argument).exists())


def _as_pair(argument: str) -> str:
    return f"{argument[2:]}=true" if argument.startswith("--") else argument


def _read(options: type[Any], pairs: Sequence[str], command: str) -> dict[str, Any]:
    """Return the values of options that are written key=value."""
    kinds = get_type_hints(options, include_extras=True)
    values: dict[str, Any] = {}
    for argument in pairs:
        key, equals, value = argument.partition("=")
        if not equals:
            raise LabError(f"{command}: {argument!r} is not understood: options are written key=value.")
        if key not in kinds:
            hint = f"{did_you_mean(key, kinds)} Its keys are: {', '.join(kinds)}." if kinds else ""
            raise LabError(f"{key} cannot be set: {command} has no key {key!r}.{hint}")
        values[key] = validate(kinds[key], _parse(value), key)
    return values


def _parse(value: str) -> Any:
    """Return a value as Hydra reads it from YAML; a plain word if it is not YAML."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.create(f"v: {value}").v if value else ""
    except Exception:
        return value


def _usage(
    name: str, directory: str, options: type[Any], notes: str, several: bool, overrides: str, default: str
) -> str:
    columns = min(WIDTH, output.columns(sys.stdout) or WIDTH)
    rows = {"DIR": directory}
    for each in fields(options):
        rows[each.metadata["shown"] or f"{each.name}={format_value(each.default)}"] = each.metadata["description"]
    rows |= {"key=value": overrides} if overrides else {}
    flags = [f"[{key}]" for key in rows if key.startswith("--")]
    pairs = ["[key=value ...]"] if len(rows) > 1 + len(flags) else []
    width = max(map(len, rows)) + 4
    place = "[DIR]" if default else "DIR ..." if several else "DIR"
    lines = [" ".join(["Usage: python -m lab", name, place, *flags, *pairs]), ""]
    for key, text in rows.items():
        lines += textwrap.wrap(text, columns, initial_indent=f"  {key}".ljust(width), subsequent_indent=" " * width)
    paragraphs = [textwrap.fill(" ".join(text.split()), columns) for text in notes.split("\n\n") if text]
    return "\n".join(lines) + "".join(f"\n\n{text}" for text in paragraphs)
