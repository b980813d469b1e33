"""Which Sessions can be trained in lockstep: those whose arrays have the same shapes, and which step together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from lab.common.rows import network_observations
from lab.common.text import canonical, flatten
from lab.env.vector import Spaces, detect_restore_method, probe
from lab.net.multi import choose_net
from lab.run.trackers import require_usable
from lab.spec import Spec

NUMBER = "a number"  # placeholder for a value that is a vector over the session axis, and so may differ
OWN_KEYS = ("seed", "name", "stop_at", "init_from", "tuning")  # keys of a spec that differ between Sessions of a stack
OWN_ENV_KEYS = (
    "id",
    "name",
    "kwargs",
    "max_episode_steps",
    "wrappers",
    "reference",
)  # the same of an environment, if the spaces are equal


def shared_settings(spec: Spec) -> dict[str, str]:
    """Return by dotted key the settings that Sessions of one stack must have in common."""
    common = {key: value for key, value in asdict(spec).items() if key not in OWN_KEYS}
    common["env"] = {key: value for key, value in common["env"].items() if key not in OWN_ENV_KEYS}
    common["env"]["reported"] = spec.env.reported
    common["net"] = spec.net.to_dict()
    target = f"{type(spec.algo).__module__}.{type(spec.algo).__qualname__}"
    common["algo"] = {"_target_": target, **_without_numbers(spec.algo)}
    return {key: canonical(value) for key, value in flatten(common).items()}


def _without_numbers(item: Any) -> dict[str, Any]:
    values = {field.name: getattr(item, field.name) for field in fields(item)}
    return {
        name: _without_numbers(value) if is_dataclass(value) else NUMBER if isinstance(value, float) else value
        for name, value in values.items()
    }


def group_in_lockstep(specs: Sequence[Spec], spaces: Spaces) -> list[tuple[list[int], Spaces]]:
    """Return the indices of Sessions that can be trained in lockstep, by group, and the spaces of each group.

    `spaces` are those of the first Session's environment. LabError is raised if another cannot be made.
    """
    names = [canonical(asdict(spec.env)) for spec in specs]
    environments: dict[str, tuple[Spaces, str]] = {}
    several = len(set(names)) > 1
    for name, spec in zip(names, specs, strict=True):
        if name not in environments:
            probed = probe(spec.env) if environments else spaces
            environments[name] = probed, detect_restore_method(spec.env) if several else ""
        spec.env.scale_images = environments[name][0].scale_images
    groups: list[tuple[list[int], tuple[dict[str, str], Spaces, str]]] = []
    for index, (name, spec) in enumerate(zip(names, specs, strict=True)):
        common = (shared_settings(spec), *environments[name])
        members = next((group for group, shared in groups if shared == common), None)
        if members is None:
            groups.append(([index], common))
        else:
            members.append(index)
    return [(members, common[1]) for members, common in groups]


def check_spaces(specs: Sequence[Spec], known: dict[str, Spaces] | None = None) -> list[Spaces]:
    """Return the spaces of each Session, or raise LabError if they do not suit its algorithm and network.

    In the specs, `env.scale_images=auto` and `compile=auto` become true or false, and the default network that which
    suits the observations. `known` is a cache of spaces by environment.
    """
    environments = {} if known is None else known
    names = [canonical(asdict(spec.env)) for spec in specs]
    for name, spec in zip(names, specs, strict=True):
        if name not in environments:
            environments[name] = probe(spec.env)
        spaces = environments[name]
        spec.env.scale_images = spaces.scale_images
        spec.resolve_compile()
        require_usable(spec.log.trackers)
        spec.algo.check_spaces(spaces, spec.env)
        observations = network_observations(spaces.observation)
        spec.net = choose_net(spec.net, observations)
        spec.algo.check_net(spec.net)
        spec.net.check_observations(observations, spaces.action_size)
    return [environments[name] for name in names]
