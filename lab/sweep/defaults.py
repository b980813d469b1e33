"""The defaults of a search: the point whose spec equals the config without the search."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lab.analysis.scale import is_number
from lab.common.text import format_value
from lab.errors import LabError
from lab.sweep.composer import Composer
from lab.sweep.overrides import searched_point
from lab.sweep.plan import MISSING, SweepPlan, distinct_specs, select, spec_identity
from lab.sweep.search import make_extension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def find_defaults(composer: Composer, plan: SweepPlan) -> dict[str, Any]:
    """Return the suggestions that give the spec of the config without the search.

    Raises:
        LabError: no point of the search has that spec.
    """
    from optuna.distributions import CategoricalDistribution
    from optuna.pruners import NopPruner
    from optuna.samplers import RandomSampler

    from lab.sweep.study import Study
    from lab.training.lockstep import check_spaces

    fixed, space, seeds = plan.overrides.fixed, plan.overrides.space, plan.seeds
    spaces: dict[str, Any] = {}

    def identity(overrides: list[str]) -> str:
        check_spaces(distinct_specs(composer, overrides, seeds), spaces)  # decides what is `auto`
        return spec_identity(composer, overrides, seeds)

    try:
        specs, default_identity = composer.specs(fixed, seeds), identity(fixed)
    except LabError as error:
        raise LabError(f"without {', '.join(space)}, {error}") from error
    extend, values = make_extension(composer, plan), dict[str, Any]()

    def makes_the_same(values: dict[str, Any]) -> bool:
        try:
            return identity([*fixed, *searched_point(values, space).overrides]) == default_identity
        except LabError:  # no Session can be trained with one of the values alone
            return False

    def find(key: str, distribution: BaseDistribution) -> Any:
        default = select(specs[0].to_dict(), key.lstrip("+"))
        if isinstance(distribution, CategoricalDistribution):
            for choice in distribution.choices:
                if makes_the_same({key: choice}):
                    return choice
        elif is_number(default):
            with suppress(ValueError):  # 0 on a logarithmic scale
                if distribution._contains(distribution.to_internal_repr(default)):
                    return default
        if default is MISSING:
            raise LabError(f"{key} has no default.")
        name = f"the default of {key}" if isinstance(default, dict) else f"{key}={format_value(default)}"
        raise LabError(f"{name} is not in {plan.overrides.texts.get(key, distribution)}.")

    while True:  # what search.custom suggests next may depend on the values so far
        study = Study(["maximize"], NopPruner(), RandomSampler, space, extend, defaults=values)
        study.open({})
        suggested = study.distributions(study.ask()[0])
        key = next((key for key in suggested if key not in values), None)
        if key is None:
            break
        values[key] = find(key, suggested[key])
    if not makes_the_same(values):
        raise LabError("no point of it has their spec.")
    return values
