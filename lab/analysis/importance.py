"""Importance of hyperparameters by PED-ANOVA: how much each separates the best Trials from all.

Source: Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.analysis.scale import is_number, needs_log_scale
from lab.common.text import format_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

TOP_FRACTION = 0.1  # of Trials that count as good ones
MIN_TOP = 5  # good Trials, as the authors advise


def ped_anova(columns: dict[str, list[Any]], values: np.ndarray) -> dict[str, float]:
    """Return the importance of each column in separating high values from all, largest first.

    Args:
        columns: of hyperparameters, [n] each, none constant.
        values: more is better; not all equal [n].
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = {key: distribution(column) for key, column in columns.items()}
    categorical = optuna.distributions.CategoricalDistribution
    cells = {
        key: list(map(format_value, column)) if isinstance(distributions[key], categorical) else column
        for key, column in columns.items()
    }
    good = min(max(int(np.ceil(TOP_FRACTION * len(values))), MIN_TOP), len(values) // 2)
    # The threshold includes ties and must exclude the worst Trials.
    good = min(good, int((values > values.min()).sum()))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction="maximize")
            for index, value in enumerate(values.tolist()):
                point = {key: column[index] for key, column in cells.items()}
                study.add_trial(optuna.create_trial(params=point, distributions=distributions, value=value))
            evaluator = PedAnovaImportanceEvaluator(target_quantile=(good - 0.5) / len(values))
            importance = get_param_importances(study, evaluator=evaluator, params=list(columns))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(sorted(importance.items(), key=lambda item: -item[1]))


def distribution(column: Sequence[Any]) -> BaseDistribution:
    """Return an Optuna distribution over the range or the distinct values of a column of hyperparameters."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not all(map(is_number, column)):
        return CategoricalDistribution(sorted(set(map(format_value, column))))
    low, high = min(column), max(column)
    integers = all(isinstance(value, int) for value in column)
    log = needs_log_scale(low, high)
    return IntDistribution(low, high, log=log) if integers else FloatDistribution(low, high, log=log)
