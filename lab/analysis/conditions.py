"""Conditions that choose runs: `algo=ppo`, `env.id=CartPole-v1`, `return>450`, `since=7d`, `tag=paper`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lab.analysis.runs import LEVELS, RUN_STATES, SHORT, Run, read_runs
from lab.common.text import format_value
from lab.errors import LabError, did_you_mean, require_one_of
from lab.run.schemas import LESS_IS_BETTER, METRICS

CONDITION = re.compile(r"(?P<key>[A-Za-z_][\w.]*)\s*(?P<operator>!=|>=|<=|=|>|<)(?P<value>.*)", re.DOTALL)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip
AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
DATES = ("since", "before")
TEXTS = ("sha", "tag", "state", "path")  # whose values are never numbers
OPTIONS = ("sort", "level")  # of what lists runs, which are written like conditions
NEWEST_FIRST = "date"


def _net_names(run: Run) -> list[str]:
    """Return the classes of its networks, and their names in conf/net/."""
    targets = [str(target) for target in run.values("net._target_")]
    return [*targets, *(target.split(".")[-2] for target in targets if "." in target)]


FIELDS: dict[str, Callable[[Run], Sequence[Any]]] = {
    "algo": lambda run: run.algos,
    "env": lambda run: [*map(str, run.values("env.name")), *run.envs],
    "net": _net_names,
    "state": lambda run: [run.state],
    "tag": lambda run: run.tags,
    "seed": lambda run: run.seeds,
    "sha": lambda run: [run.sha] if run.sha else [],
    "is_rerun": lambda run: [run.rerun_of is not None],
    "uncommitted": lambda run: [] if run.uncommitted is None else [run.uncommitted],
    "frame": lambda run: [run.frame],
    "sessions": lambda run: [run.planned],
    "path": lambda run: [str(run.path)],
    "date": lambda run: [run.start] if run.start else [],
}  # what a condition may name beside metrics and keys of the spec


@dataclass(frozen=True)
class Condition:
    """What must hold of a run."""

    key: str
    operator: str
    value: Any  # a number, a truth value, None, a text, a tuple of alternatives or, for since and before, a time

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition that a text says.

        Raises:
            LabError: the text is none, or its value is not allowed.
        """
        match = CONDITION.fullmatch(text.strip())
        if not match:
            raise LabError(f"{text!r} is no condition: write key=value, or key>value with one of != > >= < <=.")
        key, sign, value = match["key"], match["operator"], match["value"].strip()
        if key in DATES:
            if sign != "=":
                raise LabError(f"{text!r} is not allowed: write {key}={value}.")
            return cls(key, sign, _parse_time(key, value))
        if sign in OPERATORS and not isinstance(_parse(value), (int, float)):
            raise LabError(f"{text!r} is not allowed: what {key} is compared with by {sign} must be a number.")
        several = sign in ("=", "!=") and "," in value and value[0] not in "[{'\""
        values = value.split(",") if several else [value]
        for each in values if key == "state" else ():
            if not _is_pattern(each):
                require_one_of("state", each, RUN_STATES)
        parsed = tuple(each if key in TEXTS else _parse(each) for each in values)
        return cls(key, sign, parsed if several else parsed[0])

    def holds(self, run: Run) -> bool:
        """Return whether it holds of a run: of one of its values, where it has several."""
        if self.key in DATES:
            since = self.key == "since"
            return run.start is not None and (run.start >= self.value if since else run.start < self.value)
        values = find_values(run, self.key)
        if self.operator == "=":
            return any(self._equals(value) for value in values)
        if self.operator == "!=":
            return not any(self._equals(value) for value in values) and (bool(values) or self.key == "tag")
        return any(OPERATORS[self.operator](value, self.value) for value in values if _is_number(value))

    def _equals(self, value: Any) -> bool:
        wanted = self.value if isinstance(self.value, tuple) else (self.value,)
        return any(_equals(value, each, is_start=self.key == "sha") for each in wanted)


def _equals(value: Any, wanted: Any, is_start: bool) -> bool:
    """Return whether a value is the wanted one, matches it as a pattern, or starts with it."""
    if _is_number(value) and _is_number(wanted):
        return bool(value == wanted)
    if isinstance(value, str) and isinstance(wanted, str):
        return value == wanted or (value.startswith(wanted) if is_start else fnmatchcase(value, wanted))
    return format_value(value) == format_value(wanted)


def find_values(run: Run, key: str) -> Sequence[Any]:
    """Return the values of a field, a metric or a key of the spec of a run."""
    if key in FIELDS:
        return FIELDS[key](run)
    if run.values(key):
        return run.values(key)
    value = run.figures.get(key)
    return [] if value is None else [value]


def find_runs(
    root: str | Path = "outputs", *conditions: str, sort: str = NEWEST_FIRST, level: str | None = None
) -> list[Run]:
    """Return the run directories below a directory of which all conditions hold.

    Args:
        root: the directory.
        conditions: as texts: a key, one of = != > >= < <=, and a value. A key is one of the spec, a metric of
            session.json, or state, tag, seed, sha, uncommitted, is_rerun, frame, sessions, path, since, before. A text
            may hold wildcards, * and ?; commas separate alternatives. Times are ages (30m, 12h, 7d, 2w) or dates.
        sort: a key; the best or newest first, texts by the alphabet. A minus sign in front reverses it.
        level: session, trial or experiment; None for each run directory that lies in no other.

    Raises:
        LabError: there is no such directory, or a condition has a key or a value that is not allowed.
    """
    if level is not None:
        require_one_of("level", level, LEVELS)
    parsed = [Condition.parse(text) for text in conditions]
    runs = read_runs(Path(root), level)
    for key in [*(condition.key for condition in parsed), sort.removeprefix("-")]:
        _require_key(key, runs, Path(root))
    chosen = [run for run in runs if all(condition.holds(run) for condition in parsed)]
    return sort_runs(chosen, sort)


def explain_none(root: Path, conditions: Sequence[str], level: str | None = None) -> str:
    """Return a sentence on why no run was found, with the nearest match of a value that none has."""
    runs = read_runs(root, level)
    if not runs or not conditions:
        return f"There is no run directory below {root}."
    for condition in map(Condition.parse, conditions):
        if not any(condition.holds(run) for run in runs):
            known = {str(value) for run in runs for value in find_values(run, condition.key) if isinstance(value, str)}
            value = ",".join(map(str, v)) if isinstance(v := condition.value, tuple) else format_value(v)
            hint = did_you_mean(value, known) if condition.operator == "=" else ""
            return f"No run below {root} has {condition.key}{condition.operator}{value}.{hint}"
    return f"No run below {root} meets all of {', '.join(conditions)}."


def sort_runs(runs: Iterable[Run], sort: str) -> list[Run]:
    """Return runs in the order of a key: numbers and dates from the highest, texts by the alphabet.

    Metrics of which less is better start with the lowest. Runs without a value come last.
    """
    key, reverse = sort.removeprefix("-"), sort.startswith("-")
    values = {id(run): found[0] for run in runs if (found := [v for v in find_values(run, key) if v is not None])}
    known = [run for run in runs if id(run) in values]
    kinds = {str if isinstance(value, str) else float for value in values.values() if not isinstance(value, datetime)}
    texts = str in kinds
    known.sort(
        key=lambda run: format_value(values[id(run)]) if texts else values[id(run)],
        reverse=(not texts and key not in LESS_IS_BETTER) != reverse,
    )
    return [*known, *(run for run in runs if id(run) not in values)]


def _require_key(key: str, runs: Sequence[Run], root: Path) -> None:
    """Raise LabError unless a key is a field, a metric, or in the spec of one of some runs."""
    known = {*FIELDS, *DATES, *METRICS}
    known |= {name for run in runs for name in (*run.figures, *(key for spec in run.specs for key in spec))}
    if not runs or key in known or SHORT.get(key) in known:
        return
    endings = sorted(name for name in known if name.endswith(f".{key}"))
    near = f" Did you mean {endings[0]!r}?" if endings else did_you_mean(key, {*known, *SHORT, *OPTIONS})
    own = sorted({*FIELDS, *DATES, *(name for run in runs for name in run.figures)})
    raise LabError(
        f"{key} is no key of the runs below {root}, and no metric of theirs.{near} Keys are {', '.join(own)}, and those"
        " of the spec, as algo.gamma."
    )


def _parse_time(key: str, value: str) -> datetime:
    now = datetime.now().astimezone()
    if match := AGE.fullmatch(value):
        with suppress(OverflowError):
            return now - timedelta(**{UNITS[match[2]]: float(match[1])})
    try:
        time = datetime.fromisoformat(value)
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError) as error:
        raise LabError(
            f"{key}={value} is not allowed: {key} must be an age, as 30m, 12h, 7d or 2w, or a date, as 2026-11-27."
        ) from error


def _parse(value: str) -> Any:
    """Return a value as it is typed on the command line."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    constants = {"true": True, "false": False, "null": None}
    if value.lower() in constants:
        return constants[value.lower()]
    if value[:1] in ("[", "{"):
        import yaml

        with suppress(yaml.YAMLError):
            return yaml.safe_load(value)
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_pattern(value: str) -> bool:
    return bool(re.search(r"[*?\[]", value))
