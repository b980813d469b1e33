"""From the words of a command line to the points of a sweep: `seed` spans a Trial, every other swept key Trials."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lab.common.text import canonical, flatten, format_value, quote
from lab.errors import LabError
from lab.spec import SWEEP_KEYS, SearchSpec
from lab.trial import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SEARCH_ONLY = "is a range without steps: a grid needs values, as in {key}=1,2,3; a search takes ranges (search=...)"


@dataclass
class SweepOverrides:
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


def parse(
    arguments: list[str], search: SearchSpec | None, seed: Any = 0, config_loader: ConfigLoader | None = None
) -> SweepOverrides:
    """Read the words of a sweep.

    Args:
        arguments: overrides, some with several values.
        search: where points come from if they are no grid; what the command line says of a key counts before it.
        seed: what to take for seeds if no word says, or if one says it by an interpolation.
        config_loader: knows the options of groups, for words such as algo=glob(*).

    Raises:
        LabError: a word sweeps what cannot be swept, two words sweep one key, or seeds are not whole numbers.
    """
    parser = OverridesParser.create(config_loader)
    given = parser.parse_overrides(arguments)
    space = parser.parse_overrides([f"{key}={text}" for key, text in search.params.items()] if search else [])
    said = _keys_set_once(given)
    _keys_set_once(space)
    sweep = SweepOverrides(seeds_of([seed]), [], {}, {}, {})
    for override in [*(override for override in space if said.isdisjoint(leaves(override))), *given]:
        line = override.input_line or ""
        key = "" if override.is_delete() else override.get_key_element()
        plain_key = key.lstrip("+")
        if override.is_delete() or not override.is_sweep_override():
            if plain_key != "seed":
                sweep.fixed.append(line)
            elif "${" not in str(override.value()):
                sweep.seeds = seeds_of([override.value()])
        elif plain_key == "seed":
            sweep.seeds = seeds_of([value_of(text) for text in values_of(override)])
        elif plain_key.split(".")[0] in SWEEP_KEYS:
            raise LabError(f"{plain_key} cannot be swept: it decides the sweep, and no Session. It takes one value.")
        elif search:
            sweep.space[key], sweep.texts[key] = distribution(override), line.partition("=")[2]
        else:
            sweep.axes[key] = [f"{key}={text}" for text in values_of(override)]
    interpolated = next((line for line in arguments if re.match(r"\+*seed=.*\$\{", line)), None)
    if interpolated and (sweep.axes or search):
        raise LabError(
            f"{interpolated} is not allowed in a sweep of other keys: its seeds are the same for every Trial."
        )
    return sweep


def leaves(override: Override) -> set[str]:
    """Return the keys that a word sets; of {key: value} each key in it."""
    key = override.get_key_element().lstrip("+~")
    if override.is_delete():
        return set()
    values = [override.value()]
    if override.is_sweep_override():
        values = [value_of(text) for text in values_of(override)] if override.is_choice_sweep() else [None]
    return {leaf for value in values for leaf in flatten({key: value})}


def _keys_set_once(overrides: list[Override]) -> set[str]:
    """Return the keys that words set.

    Raises:
        LabError: two words set one key, and one of them sweeps it; of two that do not, Hydra takes the last.
    """
    words: dict[str, Override] = {}
    for override in overrides:
        for key in sorted(leaves(override)):
            other = words.setdefault(key, override)
            if other is not override and (override.is_sweep_override() or other.is_sweep_override()):
                raise LabError(f"{other.input_line} and {override.input_line} both set {key}: leave one of them out.")
    return set(words)


def point(words: list[str]) -> Point:
    """Return the point that overrides make, with the values that they give."""
    pairs = (word.partition("=") for word in words)
    return Point(words, {key.lstrip("+"): value_of(text) for key, _, text in pairs})


def searched(values: dict[str, Any], space: Collection[str] = ()) -> Point:
    """Return the point of a search.

    Args:
        values: what Optuna suggests, by key.
        space: keys whose texts are in Hydra's grammar; others may hold any text.
    """
    return point([f"{key}={value if key in space else grammar(value)}" for key, value in values.items()])


def grammar(value: Any) -> str:
    """Write a value in Hydra's grammar; a text that Hydra reads as one value, as [64,64], stays as it is."""
    if not isinstance(value, str):
        return exact(value)
    try:
        sweeps = OverridesParser.create().parse_override(f"key={value}").is_sweep_override()
    except HydraException:
        sweeps = True
    return quote(value) if sweeps else value


def exact(value: Any) -> str:
    """Write a value so that Hydra reads the same one, texts in quotes."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return f"[{','.join(map(exact, value))}]"
    if isinstance(value, dict):
        texts = {key: Override._get_value_element_as_str(key) for key in value}
        return f"{{{','.join(f'{texts[key]}:{exact(item)}' for key, item in value.items())}}}"
    return format_value(value)


def value_of(text: str) -> Any:
    """Return the value that a text has on the command line, as plain data."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def values_of(override: Override) -> list[str]:
    """Return the values that a word gives to its key, written so that Hydra reads them again.

    Raises:
        LabError: it gives a range without steps.
    """
    if not override.is_discrete_sweep():
        key = override.get_key_element()
        raise LabError(f"{override.input_line} {SEARCH_ONLY.format(key=key)}.")
    values = []
    for element in override.sweep_iterator():
        text, value = Override._get_value_element_as_str(element), Override._convert_value(element)
        # What str(1) gives, Hydra writes as 1, which is another value.
        values.append(text if canonical(value_of(text)) == canonical(value) else exact(value))
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
            raise LabError(f"seed={format_value(seed)} is not allowed: seed must be 0 or a positive whole number.")
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
        texts: dict[str, str] = {}
        for text in values_of(override):
            texts.setdefault(canonical(value_of(text)), text)
        return CategoricalDistribution(list(texts.values()))
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
    return [
        searched({key: values[min(i, len(values) - 1)] for key, values in ends.items()}, space) for i in range(longest)
    ]
