"""Points as what they train: values as specs hold them, and points that train the same counted as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lab.common.text import canonical
from lab.errors import LabError
from lab.spec import Spec
from lab.sweep.composer import Composer
from lab.trial import Point, Trial

MISSING = object()
MOST_NAMED = 3  # points that are said to be the same


def recorded(context: Composer, fixed: Sequence[str], point: Point, seeds: Sequence[int]) -> Point:
    """Return a point with the hyperparameters that its Sessions are trained with.

    They differ from what its words say where a value is converted to the type of its key, or interpolated. One that
    differs between seeds, and a choice of a config group, stays as it was written.

    Args:
        context: composes specs.
        fixed: overrides of every point.
        point: what its words say.
        seeds: of its Sessions.
    """
    try:
        specs = [spec.to_dict() for spec in distinct(context.specs([*fixed, *point.overrides], seeds))]
    except LabError:  # its Sessions will fail, and say why
        return point
    values = {}
    for key, written in point.hyperparameters.items():
        found = [_trained(select(spec, key), written) for spec in specs]
        values[key] = found[0] if len(set(map(canonical, found))) == 1 else written
    return replace(point, hyperparameters=values)


def distinct(specs: Sequence[Spec]) -> list[Spec]:
    """Return those of the specs that `lab.spec.read` made for some seeds that differ in more than the seed."""
    first = specs[0]  # what no seed changes is made once, and shared
    return [spec for spec in specs if spec is first or spec.algo is not first.algo]


def select(spec: dict[str, Any], key: str) -> Any:
    """Return what a spec holds at a dotted key; MISSING if it holds nothing there."""
    found: Any = spec
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return MISSING
        found = found[part]
    return found


def _trained(held: Any, written: Any) -> Any:
    """Return what a spec holds of a value that was written; of {key: value}, the keys that were written."""
    if held is MISSING:
        return written
    if isinstance(written, dict) and isinstance(held, dict):
        return {key: _trained(held.get(key, MISSING), value) for key, value in written.items()}
    return written if isinstance(held, dict) else held


def numbered(
    context: Composer, fixed: Sequence[str], points: Sequence[Point], begun: Sequence[Trial], seeds: Sequence[int]
) -> tuple[list[Point], str]:
    """Return points by number, each once, and a sentence on those that train what another one trains, if there are any.

    Trials that were begun earlier keep their numbers, new points follow.

    Args:
        context: composes specs.
        fixed: overrides of every point.
        points: as they were asked for.
        begun: Trials that exist, by number.
        seeds: of the Sessions.

    Raises:
        LabError: a point makes no spec.
    """

    def identity(point: Point) -> str:
        return canonical([spec.to_dict() for spec in distinct(context.specs([*fixed, *point.overrides], seeds))])

    asked: dict[str, list[Point]] = {}
    for point in points:
        asked.setdefault(identity(point), []).append(point)
    known = {identity(trial.point) for trial in begun}
    new = [recorded(context, fixed, same[0], seeds) for name, same in asked.items() if name not in known]
    return [*(trial.point for trial in begun), *new], _once(list(asked.values()))


def _once(groups: list[list[Point]]) -> str:
    """Say which points were asked for more than once."""
    several = [
        " = ".join(dict.fromkeys(" ".join(point.overrides) for point in same)) for same in groups if len(same) > 1
    ]
    if not several:
        return ""
    more = f" and {len(several) - MOST_NAMED} more" if len(several) > MOST_NAMED else ""
    names = ", ".join(several[:MOST_NAMED])
    return (
        f"Of the {sum(map(len, groups))} points, {len(groups)} are different: {names}{more}"
        f" {'is' if len(several) == 1 else 'are'} trained once."
    )
