"""From the words of a command line to the points of a sweep: `seed` spans a Trial, every other swept key Trials."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from lab.errors import LabError, shown
from lab.spec import SWEEP_KEYS, SearchSpec
from lab.trial import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SEARCH_ONLY = "is a range without steps: a grid needs values, as in {key}=1,2,3; a search takes ranges (search=...)"


@dataclass
class Sweep:
    """What the words of a sweep say.

    Attributes:
        seeds: one Session of every Trial for each.
        fixed: overrides that every Session has.
        axes: of a grid: the values of each swept key, as overrides.
        space: of a search: a distribution for each hyperparameter, by its key.
        texts: how that space is written, by key.
    """

    seeds: list[int]
    fixed: list[str]
    axes: dict[str, list[str]]
    space: dict[str, BaseDistribution]
    texts: dict[str, str]

    def grid(self) -> list[Point]:
        """Return the points of the grid; the last key changes fastest."""
        return [point(list(words)) for words in itertools.product(*self.axes.values())]


def parse(arguments: list[str], search: SearchSpec | None, seed: Any = 0) -> Sweep:
    """Read the words of a sweep.

    Args:
        arguments: overrides, some with several values.
        search: where points come from if they are no grid; what the command line says of a key counts before it.
        seed: what to take for seeds if no word says.

    Raises:
        LabError: a word sweeps what cannot be swept, or seeds are not whole numbers.
    """
    written = [f"{key}={text}" for key, text in search.params.items()] if search else []
    sweep = Sweep(seeds_of([seed]), [], {}, {}, {})
    for override in OverridesParser.create().parse_overrides([*written, *arguments]):
        line = override.input_line or ""
        key = "" if override.is_delete() else override.get_key_element()
        plain_key = key.lstrip("+")
        if override.is_delete() or not override.is_sweep_override():
            if plain_key == "seed":
                sweep.seeds = seeds_of([plain(override.get_value_element_as_str())])
                continue
            for found in (sweep.axes, sweep.space, sweep.texts):
                found.pop(key, None)
            sweep.fixed.append(line)
        elif plain_key == "seed":
            sweep.seeds = seeds_of([plain(text) for text in values_of(override)])
        elif plain_key.split(".")[0] in SWEEP_KEYS:
            raise LabError(f"{plain_key} cannot be swept: it decides the sweep, and no Session. It takes one value.")
        elif search:
            sweep.space[key], sweep.texts[key] = distribution(override), line.partition("=")[2]
        else:
            sweep.axes[key] = [f"{key}={text}" for text in values_of(override)]
    return sweep


def point(words: list[str]) -> Point:
    """Return the point that overrides make."""
    pairs = (word.partition("=") for word in words)
    return Point(words, {key.lstrip("+"): plain(text) for key, _, text in pairs})


def quote(text: str) -> str:
    """Write a text as a value in Hydra's grammar: in quotes, where a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def searched(values: dict[str, Any]) -> Point:
    """Return the point of a search, from what Optuna suggests by key."""
    return point([f"{key}={shown(value)}" for key, value in values.items()])


def plain(text: str) -> Any:
    """Return a value as it is written on the command line, as plain data."""
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]  # type: ignore[call-overload, index]
    except Exception:  # not YAML, so a plain word
        return text


def values_of(override: Override) -> list[str]:
    """Return the values that a word gives to its key.

    Raises:
        LabError: it gives a range without steps.
    """
    if not override.is_discrete_sweep():
        key = override.get_key_element()
        raise LabError(f"{override.input_line} {SEARCH_ONLY.format(key=key)}.")
    values = list(override.sweep_string_iterator())
    if not values:
        raise LabError(f"{override.input_line} gives {override.get_key_element()} no value to sweep.")
    return values


def seeds_of(values: list[Any]) -> list[int]:
    """Return the seeds that values, some of them lists, name.

    Raises:
        LabError: one is not a whole number, or stands twice.
    """
    seeds = [seed for value in values for seed in (value if isinstance(value, list) else [value])]
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise LabError(f"seed={shown(seed)} is not allowed: seed must be 0 or a positive whole number.")
    if len(set(seeds)) < len(seeds) or not seeds:
        raise LabError(f"seed={','.join(map(str, seeds))} is not allowed: seeds must be one or more, each once.")
    return seeds


def distribution(override: Override) -> BaseDistribution:
    """Return the distribution that a word of a search gives to its key.

    Raises:
        LabError: Optuna has no such distribution.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
    from optuna.distributions import CategoricalDistribution

    unknown = sorted(getattr(override.value(), "tags", set()) - {"log"})
    if unknown:
        raise LabError(
            f"{override.input_line} has the tag {unknown[0]!r}, which means nothing here: the only tag is log."
        )
    if override.is_choice_sweep():  # kept as texts, so that Hydra reads each as the value that it was written as
        return CategoricalDistribution(values_of(override))
    try:
        return create_optuna_distribution_from_override(override)
    except (ValueError, NotImplementedError, AssertionError) as error:
        raise LabError(f"{override.input_line} is not a distribution that can be searched: {error}") from error


def choices(found: BaseDistribution, key: str) -> list[Any]:
    """Return all values of a distribution, for a search of a grid.

    Raises:
        LabError: it has no end of them.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    try:
        return list(OptunaSweeperImpl._to_grid_sampler_choices(found))
    except ValueError as error:
        raise LabError(f"hydra/sweeper/sampler=grid cannot search {key}: it {SEARCH_ONLY.format(key=key)}.") from error


def corners(space: dict[str, BaseDistribution]) -> list[Point]:
    """Return points at which every end of every distribution, and every choice, occurs: to check them beforehand."""
    from optuna.distributions import CategoricalDistribution

    ends = {
        key: list(found.choices) if isinstance(found, CategoricalDistribution) else [found.low, found.high]  # type: ignore[attr-defined]
        for key, found in space.items()
    }
    longest = max(map(len, ends.values()), default=1)
    return [searched({key: values[min(i, len(values) - 1)] for key, values in ends.items()}) for i in range(longest)]
