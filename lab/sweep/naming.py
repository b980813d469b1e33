"""The name of a sweep: that of its Sessions, with all choices in it that are swept, as in a2c-ppo_cartpole."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

from omegaconf import OmegaConf, flag_override

from lab.common.interpolation import literal
from lab.launch.naming import select_for_all
from lab.sweep.composer import Composer
from lab.sweep.overrides import SweepOverrides
from lab.sweep.plan import MISSING, select

MAX_LENGTH = 60  # characters of the values that take the place of one


def name_sweep(composer: Composer, overrides: SweepOverrides) -> str:
    """Return one name for all Sessions of a sweep.

    Raises:
        LabError: a choice makes no spec.
    """
    config = copy.deepcopy(composer.config)
    template = str(OmegaConf.to_container(config, resolve=False)["name"])  # type: ignore[call-overload, index]
    swept = any(key.lstrip("+") == "name" for key in overrides.swept)
    with flag_override(config, ["readonly", "struct"], False):
        for key in ["name"] if swept else re.findall(r"\$\{([\w.]+)\}", template):
            values = swept_texts(composer, overrides, key)
            if len(values) > 1:
                OmegaConf.update(config, key, literal(join_names(values)))
    return select_for_all(config, "name", overrides.seeds) or str(composer.config.name)


def swept_texts(composer: Composer, overrides: SweepOverrides, key: str) -> list[str]:
    """Return the different values that a key of the spec has in a sweep, in order."""
    points = overrides.variations(key.partition(".")[0])
    if len(points) == 1:
        return []
    specs = [composer.specs([*overrides.fixed, *point.overrides], overrides.seeds)[0].to_dict() for point in points]
    values = [select(spec, key) for spec in specs]
    return list(dict.fromkeys(str(value) for value in values if value is not MISSING))


def join_names(names: Sequence[str]) -> str:
    """Join names by hyphens; of many, the first ones are named and the others counted."""
    whole = "-".join(names)
    if len(whole) <= MAX_LENGTH and len(names) <= 5:
        return whole
    first = names[:1]
    while len(first) < 4 and len("-".join(names[: len(first) + 1])) <= MAX_LENGTH:
        first = names[: len(first) + 1]
    return f"{'-'.join(first)}-and-{len(names) - len(first)}-more"
