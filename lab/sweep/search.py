"""What a search is made of: its sampler and pruner, its space, and the study that gives its points."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, flag_override

from lab.analysis.objective import Objective
from lab.errors import LabError
from lab.spec import SweepSpec
from lab.sweep.composer import Composer
from lab.sweep.plan import SweepPlan
from lab.sweep.points import SweepOverrides, searched
from lab.trial import Point

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from lab.sweep.study import Study


def grid_of(values: dict[str, list[Any]]) -> list[Point]:
    """Return the points of a grid, values by key; the last key changes fastest."""
    return [searched(dict(zip(values, row, strict=True)), values) for row in itertools.product(*values.values())]


def suggested(context: Composer, settings: SweepSpec, words: SweepOverrides) -> Point:
    """Return a point that a search suggests, conditional hyperparameters included.

    Raises:
        LabError: there is nothing to search, or what suggests more raised.
    """
    from optuna.pruners import NopPruner
    from optuna.samplers import RandomSampler

    from lab.sweep.study import Study

    assert settings.search is not None
    if not words.space and settings.search.custom is None:
        raise LabError(
            "There is nothing to search: neither search.params nor the command line has a distribution, as in"
            " algo.lr=tag(log,interval(1e-4,1e-1))."
        )
    extend = extension(context.config, settings.search.custom, words.seeds)
    trying = Study(["maximize"], NopPruner(), lambda number: RandomSampler(number), words.space, extend)
    trying.open({})
    return searched(trying.ask()[1], words.space)


def study_of(
    context: Composer, plan: SweepPlan, words: SweepOverrides, objective: Objective, settings: SweepSpec
) -> Study | None:
    """Return the study that gives points or prunes; null if nothing asks for one."""
    searching = plan.points is None
    if not searching and (plan.standalone or not plan.prune):
        return None
    from lab.sweep.study import Study

    return Study(
        objective.directions,
        made(context.pruner),
        lambda number: sampler(context.sampler, number),
        words.space if searching else {},
        extension(context.config, settings.search.custom, words.seeds) if settings.search and searching else None,
        plan.directory.study if searching else None,
    )


def sampler(config: DictConfig, number: int) -> BaseSampler:
    """Return the sampler for the Trial of a number, with random draws of its own unless its sequence is one whole."""
    from optuna.samplers import RandomSampler

    if str(config["_target_"]).endswith("GridSampler"):
        return RandomSampler(0)  # the grid is made here, in its own order, so that nothing is drawn
    seed = config.get("seed") or 0
    if not str(config["_target_"]).endswith("QMCSampler"):
        seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    return made(config, seed=seed)


def made(config: DictConfig, **changes: Any) -> Any:
    """Return the sampler or pruner of Optuna that a config describes."""
    from optuna.exceptions import ExperimentalWarning

    allowed = ("optuna.samplers.*", "optuna.pruners.*", "hydra_plugins.hydra_optuna_sweeper.*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna's, on what may change in its next version
        return instantiate(config, **changes, _execution_whitelist_=allowed)


def extension(config: DictConfig, name: str | None, seeds: Sequence[int]) -> Callable[[Any], None] | None:
    """Return the function that makes a search space conditional, if there is one.

    Args:
        config: what it is given, in which `seed` is the list of seeds of a Trial.
        name: of the function; null for none.
        seeds: of a Trial.

    Raises:
        LabError: it cannot be imported.
    """
    if name is None:
        return None
    module, _, function = name.rpartition(".")
    try:
        extend = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise LabError(f"search.custom={name} cannot be imported: {error}.") from error
    config = copy.deepcopy(config)
    with flag_override(config, ["readonly", "struct"], False):
        config["seed"] = list(seeds)

    def suggest(trial: Any) -> None:
        try:
            extend(config, trial)
        except Exception as error:
            raise LabError(f"search.custom={name} raised {type(error).__name__}: {error}") from error

    return suggest
