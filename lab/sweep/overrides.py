"""Overrides of a sweep's command line, in Hydra's grammar: `seed` spans a Trial, every other swept key spans Trials."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, ListExtensionOverrideValue, Override, OverrideType, RangeSweep
from hydra.errors import HydraException

from lab.common.text import canonical, flatten, format_value, quote
from lab.errors import LabError
from lab.sweep_spec import SWEEP_KEYS, SearchSpec
from lab.trial import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SEARCH_ONLY = "is a range without steps: a grid needs values, as in {key}=1,2,3; a search takes ranges (search=...)"


@dataclass
class SweepOverrides:
    """The parsed overrides of a sweep."""

    seeds: list[int]  # one for each Session of every Trial
    fixed: list[str] = field(default_factory=list)  # overrides that all Sessions have in common
    axes: dict[str, list[str]] = field(default_factory=dict)  # of a grid: the overrides of each swept key
    listed: list[list[str]] = field(default_factory=list)  # `points`: overrides that are swept together
    space: dict[str, BaseDistribution] = field(default_factory=dict)  # of a search: distributions by key
    texts: dict[str, str] = field(default_factory=dict)  # the same in Hydra's grammar

    @property
    def swept(self) -> list[str]:
        """The keys that span Trials, as they were written."""
        listed = [_key(override) for point in self.listed for override in point]
        return [*dict.fromkeys((*listed, *self.axes, *self.space))]

    def grid(self) -> list[Point]:
        """Return the points of the grid, or all points of a search space; the last key changes fastest.

        Raises:
            LabError: the space has a range without steps.
        """
        axes = self.axes | {
            key: [f"{key}={value}" for value in choices(distribution, key)] for key, distribution in self.space.items()
        }
        combinations = itertools.product(self.listed or [[]], itertools.product(*axes.values()))
        return [make_point([*listed, *overrides]) for listed, overrides in combinations]

    def corners(self) -> list[Point]:
        """Return points in which both ends of every range of the space, and every choice, occur."""
        ends = self._ends()
        longest = max(map(len, ends.values()), default=1)
        rows = [{key: values[min(i, len(values) - 1)] for key, values in ends.items()} for i in range(longest)]
        return [searched_point(row, self.space) for row in rows]

    def variations(self, group: str) -> list[Point]:
        """Return the first point, and all that differ from it in one key that is, or is in, a top-level key."""
        ends = {key: [f"{key}={value}" for value in values] for key, values in self._ends().items()}
        axes = self.axes | ends
        first = {key: values[0] for key, values in axes.items()}
        varied = [key for key in axes if re.split(r"[.@]", key.lstrip("+"))[0] == group]
        changes = [{key: value} for key in varied for value in axes[key][1:]]
        listed = self.listed or [[]]
        points = [[*listed[0], *(first | change).values()] for change in ({}, *changes)]
        return [make_point(point) for point in (*points, *([*each, *first.values()] for each in listed[1:]))]

    def _ends(self) -> dict[str, list[Any]]:
        """Return the choices, or both ends, of each distribution of the space."""
        if not self.space:
            return {}
        from optuna.distributions import CategoricalDistribution

        return {
            key: list(space.choices) if isinstance(space, CategoricalDistribution) else [space.low, space.high]  # type: ignore[attr-defined]
            for key, space in self.space.items()
        }


def parse(
    arguments: list[str], search: SearchSpec | None, seed: Any = 0, config_loader: ConfigLoader | None = None
) -> SweepOverrides:
    """Parse the command line of a sweep.

    Args:
        arguments: overrides, some with several values.
        search: None for a grid. The command line takes precedence over `search.params`.
        seed: seeds of the config, for a command line that sets none or only an interpolation.
        config_loader: resolves options of groups, as in algo=glob(*).

    Raises:
        LabError: a key cannot be swept, two overrides sweep the same key, or seeds are not whole numbers.
    """
    parser = OverridesParser.create(config_loader)
    given = parser.parse_overrides(arguments)
    space = parser.parse_overrides([f"{key}={text}" for key, text in search.params.items()] if search else [])
    keys = _keys_set_once(given)
    _keys_set_once(space)
    sweep = SweepOverrides(parse_seeds([seed]))
    for override in [*(override for override in space if keys.isdisjoint(leaves(override))), *given]:
        line = override.input_line or ""
        key = "" if override.is_delete() else override.get_key_element()
        plain_key = key.lstrip("+")
        if override.is_delete() or not override.is_sweep_override():
            if plain_key == "points":
                sweep.listed = parse_points(override.value())
            elif plain_key != "seed":
                sweep.fixed.append(line)
            elif "${" not in str(override.value()):
                sweep.seeds = parse_seeds([override.value()])
        elif plain_key == "seed":
            sweep.seeds = parse_seeds([parse_value(text) for text in swept_values(override)])
        elif plain_key.split(".")[0] in SWEEP_KEYS:
            searched = plain_key.removeprefix("search.params.")
            advice = "It takes one value" if searched == plain_key else f"To search a key, write {searched}=... itself"
            raise LabError(f"{plain_key} cannot be swept: it decides the sweep, and no Session. {advice}.")
        elif search:
            sweep.space[key], sweep.texts[key] = make_distribution(override), line.partition("=")[2]
        else:
            sweep.axes[key] = [f"{key}={text}" for text in swept_values(override)]
    listed = {_key(line).lstrip("+") for point in sweep.listed for line in point}
    if twice := [line for line in arguments if _key(line).lstrip("+") in listed]:
        raise LabError(f"{twice[0]} and a point of points=[...] both set {_key(twice[0])}: leave one of them out.")
    interpolated = next((line for line in arguments if re.match(r"\+*seed=.*\$\{", line)), None)
    if interpolated and (sweep.axes or search):
        raise LabError(
            f"{interpolated} is not allowed in a sweep of other keys: its seeds are the same for every Trial."
        )
    return sweep


def leaves(override: Override) -> set[str]:
    """Return the keys that an override sets; for {key: value}, each key in it."""
    key = override.get_key_element().lstrip("+~")
    if override.is_delete():
        return set()
    values = [override.value()]
    if override.is_sweep_override():
        values = [parse_value(text) for text in swept_values(override)] if override.is_choice_sweep() else [None]
    return {leaf for value in values for leaf in flatten({key: value})}


def _keys_set_once(overrides: list[Override]) -> set[str]:
    """Return the keys that overrides set; a LabError if two set one key and one of them sweeps it."""
    by_key: dict[str, Override] = {}
    for override in overrides:
        for key in sorted(leaves(override)):
            other = by_key.setdefault(key, override)
            if other is not override and (override.is_sweep_override() or other.is_sweep_override()):
                raise LabError(f"{other.input_line} and {override.input_line} both set {key}: leave one of them out.")
    return set(by_key)


def make_point(overrides: list[str]) -> Point:
    """Return the point of some overrides, with their values."""
    overrides = [merge_dict(override) if "{" in override else override for override in overrides]
    pairs = (override.partition("=") for override in overrides)
    return Point(overrides, {key.lstrip("+"): parse_value(text) for key, _, text in pairs})


def searched_point(values: dict[str, Any], space: Collection[str] = ()) -> Point:
    """Return the point of the values that Optuna suggests; values of the keys in `space` are in Hydra's grammar."""
    return make_point([f"{key}={value if key in space else to_grammar(value)}" for key, value in values.items()])


def to_grammar(value: Any) -> str:
    """Write a value in Hydra's grammar; a text that Hydra reads as one value, such as [64,64], stays as it is."""
    if not isinstance(value, str):
        return quote_exactly(value)
    try:
        sweeps = OverridesParser.create().parse_override(f"key={value}").is_sweep_override()
    except HydraException:
        sweeps = True
    return quote(value) if sweeps else value


def quote_exactly(value: Any) -> str:
    """Write a value so that Hydra reads the same one, with texts in quotes."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return f"[{','.join(map(quote_exactly, value))}]"
    if isinstance(value, dict):
        texts = {key: Override._get_value_element_as_str(key) for key in value}
        return f"{{{','.join(f'{texts[key]}:{quote_exactly(item)}' for key, item in value.items())}}}"
    return format_value(value)


def merge_dict(line: str) -> str:
    """Return an override with `++` in front if a value is a dict: as elsewhere it is merged, and it may add keys."""
    (override,) = OverridesParser.create().parse_overrides([line])
    written = override._value
    values = written.list if isinstance(written, ChoiceSweep) else [written]
    merges = override.type == OverrideType.CHANGE and any(isinstance(value, dict) for value in values)
    return f"++{line}" if merges else line


def unshuffle(override: Override) -> Override:
    """Return an override without shuffle(...), for where the order has no meaning or must not change."""
    override = copy.copy(override)
    if isinstance(override._value, (ChoiceSweep, RangeSweep)):
        override._value = dataclasses.replace(override._value, shuffle=False)
    return override


def parse_value(text: str) -> Any:
    """Return the value of a text on the command line, as plain data."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def swept_values(override: Override) -> list[str]:
    """Return the values that an override sweeps, in Hydra's grammar.

    Raises:
        LabError: it is a range without steps, or has no value.
    """
    if not override.is_discrete_sweep():
        key = override.get_key_element()
        raise LabError(f"{override.input_line} {SEARCH_ONLY.format(key=key)}.")
    values = []
    for element in override.sweep_iterator():
        if isinstance(element, ListExtensionOverrideValue):
            raise LabError(
                f"{override.input_line} is not possible: extend_list(...) cannot be swept. Write whole lists."
            )
        text, value = Override._get_value_element_as_str(element), Override._convert_value(element)
        try:  # Hydra writes the result of str(1) as 1, which is another value, and cannot read that of json_str({a:1})
            same = canonical(parse_value(text)) == canonical(value)
        except HydraException:
            same = False
        values.append(text if same else quote_exactly(value))
    if not values:
        raise LabError(f"{override.input_line} gives {override.get_key_element()} no value to sweep.")
    return values


def parse_points(value: Any) -> list[list[str]]:
    """Check the value of `points`: a list of points, each a list of overrides that set one value.

    Raises:
        LabError: it is another value, or an override in it is none.
    """
    if value is None:
        return []
    lists = isinstance(value, list) and value and all(isinstance(point, list) for point in value)
    lines = [line for point in value for line in point] if lists else []
    if not lists or not all(isinstance(line, str) and re.match(r"\+{0,2}[\w.@/-]+=", line) for line in lines):
        raise LabError(
            f"points={format_value(value)} is not allowed: points must be a list of points, each a list of overrides,"
            " as in points=[['algo.lr=1e-3','algo.gamma=0.9'],['algo.lr=3e-3','algo.gamma=0.99']]."
        )
    for override in OverridesParser.create().parse_overrides(lines):
        if override.is_sweep_override() or override.get_key_element().lstrip("+").split(".")[0] in (
            "seed",
            *SWEEP_KEYS,
        ):
            raise LabError(
                f"{override.input_line} cannot be in points=[...]: a point sets one value for each of its keys."
            )
    return [list(point) for point in value]


def _key(override: str) -> str:
    return override.partition("=")[0]


def parse_seeds(values: list[Any]) -> list[int]:
    """Flatten lists and ranges of seeds, as `100..109`, and check that they are distinct whole numbers."""
    seeds = [
        seed for value in values for each in (value if isinstance(value, list) else [value]) for seed in _span(each)
    ]
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise LabError(f"seed={format_value(seed)} is not allowed: seed must be 0 or a positive whole number.")
    if len(set(seeds)) < len(seeds) or not seeds:
        raise LabError(f"seed={','.join(map(str, seeds))} is not allowed: seeds must be one or more, each once.")
    return seeds


def _span(value: Any) -> list[Any]:
    """Return the seeds of a range as `100..109`, both ends included; of any other value the value itself."""
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", value) if isinstance(value, str) else None
    return [value] if ends is None else list(range(int(ends[1]), int(ends[2]) + 1))


def make_distribution(override: Override) -> BaseDistribution:
    """Return Optuna's distribution for an override; a LabError if there is none."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
    from optuna.distributions import CategoricalDistribution

    unknown = sorted(getattr(override.value(), "tags", set()) - {"log"})
    if unknown:
        raise LabError(
            f"{override.input_line} has the tag {unknown[0]!r}, which means nothing here: the only tag is log."
        )
    if override.is_choice_sweep():  # as texts, so that Hydra reads each as the value that was written
        texts: dict[str, str] = {}
        for text in swept_values(unshuffle(override)):
            texts.setdefault(canonical(parse_value(text)), text)
        return CategoricalDistribution(list(texts.values()))
    try:
        return create_optuna_distribution_from_override(unshuffle(override))
    except (ValueError, NotImplementedError, AssertionError) as error:
        raise LabError(f"{override.input_line} is not a distribution that can be searched: {error}") from error


def choices(distribution: BaseDistribution, key: str) -> list[Any]:
    """Return all values of a distribution, for hydra/sweeper/sampler=grid; a LabError if there is no end of them."""
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    try:
        return list(OptunaSweeperImpl._to_grid_sampler_choices(distribution))
    except ValueError as error:
        raise LabError(f"hydra/sweeper/sampler=grid cannot search {key}: it {SEARCH_ONLY.format(key=key)}.") from error
