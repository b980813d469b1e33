"""Which Sessions can be trained in lockstep: those whose arrays have the same shapes, and that step together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from lab.common.text import canonical, flatten
from lab.env.vector import Spaces, detect_restore_method, probe
from lab.spec import Spec

NUMBER = "a number"  # in place of one that is a vector over the session axis, and so may differ
OWN = ("seed", "name")  # of a spec, what every Session of a stack has for itself
OWN_ENV = ("id", "name", "kwargs", "reference")  # the same of its environment, as long as the spaces are the same


def settings(spec: Spec) -> dict[str, str]:
    """Return, by dotted key, what Sessions that are trained in lockstep must have in common."""
    common = {key: value for key, value in asdict(spec).items() if key not in OWN}
    common["env"] = {key: value for key, value in common["env"].items() if key not in OWN_ENV}
    common["net"] = spec.net.to_dict()
    common["algo"] = {
        "_target_": f"{type(spec.algo).__module__}.{type(spec.algo).__qualname__}",
        **_settings(spec.algo),
    }
    return {key: canonical(value) for key, value in flatten(common).items()}


def _settings(item: Any) -> dict[str, Any]:
    """Return the fields of an algorithm's dataclass, as `lab.algo.algorithm.stack` puts them together."""
    found = {}
    for field in fields(item):
        value = getattr(item, field.name)
        found[field.name] = _settings(value) if is_dataclass(value) else NUMBER if isinstance(value, float) else value
    return found


def group_in_lockstep(specs: Sequence[Spec], spaces: Spaces) -> list[tuple[list[int], Spaces]]:
    """Return the places of the Sessions that can be trained in lockstep, and the spaces of their environments.

    Args:
        specs: of the Sessions.
        spaces: what `lab.env.vector.probe` found of the first one's environment.

    Raises:
        LabError: an environment cannot be made.
    """
    names = [canonical(asdict(spec.env)) for spec in specs]
    environments: dict[str, tuple[Spaces, str]] = {}
    several = len(set(names)) > 1
    for name, spec in zip(names, specs, strict=True):
        if name not in environments:
            found = probe(spec.env) if environments else spaces
            environments[name] = found, detect_restore_method(spec.env) if several else ""
    groups: list[tuple[list[int], tuple[dict[str, str], Spaces, str]]] = []
    for index, (name, spec) in enumerate(zip(names, specs, strict=True)):
        common = (settings(spec), *environments[name])
        members = next((group for group, shared in groups if shared == common), None)
        if members is None:
            groups.append(([index], common))
        else:
            members.append(index)
    return [(members, common[1]) for members, common in groups]


def check_spaces(specs: Sequence[Spec], known: dict[str, Spaces] | None = None) -> list[Spaces]:
    """Check that every Session's algorithm and network can serve its environment; return the spaces of each.

    Args:
        specs: of the Sessions.
        known: spaces that were found earlier; those found here are added.

    Raises:
        LabError: one cannot, or an environment cannot be made.
    """
    environments = {} if known is None else known
    names = [canonical(asdict(spec.env)) for spec in specs]
    for name, spec in zip(names, specs, strict=True):
        if name not in environments:
            environments[name] = probe(spec.env)
        spec.algo.check_spaces(environments[name], spec.env)
        spec.net.check_observations(environments[name].observation)
    return [environments[name] for name in names]
