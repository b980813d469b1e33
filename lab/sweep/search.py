"""The parts of a search, made from its config: sampler, pruner, conditional space and study."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, flag_override

from lab.errors import LabError
from lab.sweep.composer import Composer
from lab.sweep.overrides import searched_point
from lab.sweep.plan import SweepPlan
from lab.trial import Point

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from lab.sweep.study import Study


def suggest_point(composer: Composer, plan: SweepPlan) -> Point:
    """Return a point that a search may suggest, including conditional hyperparameters, to check it beforehand.

    Raises:
        LabError: there is nothing to search, or search.custom raised.
    """
    from optuna.pruners import NopPruner
    from optuna.samplers import RandomSampler

    from lab.sweep.study import Study

    space, search = plan.overrides.space, plan.settings.search
    assert search is not None
    if not space and search.custom is None:
        raise LabError(
            "There is nothing to search: neither search.params nor the command line has a distribution, as in"
            " algo.lr=tag(log,interval(1e-4,1e-1))."
        )
    study = Study(["maximize"], NopPruner(), RandomSampler, space, make_extension(composer, plan))
    study.open({})
    return searched_point(study.ask()[1], space)


def make_study(composer: Composer, plan: SweepPlan, name: str) -> Study | None:
    """Return the study that suggests points or prunes; None for a grid without a pruner."""
    if plan.settings.only_trial is not None:  # the study is made up to date when the whole sweep is continued
        return None
    searching = plan.points is None
    if not searching and (plan.standalone or not plan.prune):
        return None
    from lab.sweep.study import Study

    return Study(
        plan.objective.directions,
        instantiate_optuna(composer.pruner),
        lambda number: make_sampler(composer.sampler, number),
        plan.overrides.space if searching else {},
        make_extension(composer, plan) if searching else None,
        plan.directory.study if searching else None,
        name,
        plan.defaults if searching else None,
    )


def make_sampler(config: DictConfig, number: int) -> BaseSampler:
    """Return the sampler for the Trial of a number, which has its own random draws, except in a QMC sequence."""
    from optuna.samplers import RandomSampler

    if str(config["_target_"]).endswith("GridSampler"):
        return RandomSampler(0)  # nothing is drawn: the plan lists the points of the grid
    seed = config.get("seed") or 0
    if not str(config["_target_"]).endswith("QMCSampler"):
        seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    return instantiate_optuna(config, seed=seed)


def instantiate_optuna(config: DictConfig, **changes: Any) -> Any:
    """Instantiate the sampler or pruner of a config."""
    from optuna.exceptions import ExperimentalWarning

    allowed = ("optuna.samplers.*", "optuna.pruners.*", "hydra_plugins.hydra_optuna_sweeper.*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return instantiate(config, **changes, _execution_whitelist_=allowed)


def make_extension(composer: Composer, plan: SweepPlan) -> Callable[[Any], None] | None:
    """Return search.custom as a function of an optuna.Trial; its config holds the list of seeds as `seed`."""
    name = plan.settings.search.custom if plan.settings.search else None
    if name is None:
        return None
    module, _, function = name.rpartition(".")
    try:
        custom = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise LabError(f"search.custom={name} cannot be imported: {error}.") from error
    config = copy.deepcopy(composer.config)
    with flag_override(config, ["readonly", "struct"], False):
        config["seed"] = list(plan.seeds)

    def extend(trial: Any) -> None:
        try:
            custom(config, trial)
        except Exception as error:
            raise LabError(f"search.custom={name} raised {type(error).__name__}: {error}") from error

    return extend
