"""The command line that trains the best Trials of an Experiment again on fresh seeds, in a directory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice

from hydra.core.override_parser.overrides_parser import OverridesParser

from lab.analysis.experiment import Experiment, Ranked
from lab.analysis.session import read_spec
from lab.common.text import format_seeds, plural, quote
from lab.errors import LabError, did_you_mean
from lab.run.code.packages import changed_since
from lab.run.schemas import ENDED
from lab.spec import require_same_spec
from lab.sweep.compose import compose
from lab.sweep.overrides import parse, parse_seeds
from lab.sweep.sweep import ONCE, read_command
from lab.sweep_spec import SWEEP_KEYS

FIRST_SEED, NUM_SEEDS = 100, 10  # that are trained by default, as far as the search did not use them
OWN = ("points", "search", "objective", "rungs", "only_trial")  # keys that decide what is validated
HOW = tuple(key for key in SWEEP_KEYS if key not in OWN)  # those that decide how it is run


def require_valid(experiment: Experiment) -> None:
    """Raise LabError unless an Experiment has a single best Trial."""
    path = experiment.directory.path
    if not experiment.directory.multirun.exists():
        raise LabError(f"{experiment.directory.multirun} is missing: it says how the sweep was started.")
    if len(experiment.objective.metrics) > 1:
        raise LabError(f"{path} has several objectives, and so no single best Trial to validate.")
    if len(experiment.by_environment) > 1:
        names = ", ".join(experiment.by_environment)
        raise LabError(f"{path} has several environments ({names}), and so no single best Trial to validate.")
    if experiment.directory.validates:
        raise LabError(f"{path} is a validation itself: name {experiment.directory.validates.path}.")
    if not experiment.ranking:
        raise LabError(f"{path} has no ranked Trial to validate: a Trial is ranked when all of its Sessions completed.")


def choose_seeds(experiment: Experiment, override: str | None) -> list[int]:
    """Return the fresh seeds: those that are asked for, those of an earlier validation, or ten others.

    Args:
        experiment: what is validated.
        override: as `seed=100..109`; None for no choice.

    Raises:
        LabError: the Experiment used one of them, or they are no seeds.
    """
    used = {session.seed for trial in experiment.trials for session in trial.sessions}
    used |= set(experiment.sweep.get("seeds") or ())
    earlier = experiment.directory.validation.find_sweep(["seeds"], "Ten fresh seeds are taken.")
    if override is not None:
        seeds = parse([override], None).seeds
    elif earlier:
        seeds = parse_seeds([list(earlier["seeds"])])
    else:
        seeds = list(islice((seed for seed in count(FIRST_SEED) if seed not in used), NUM_SEEDS))
    if repeated := sorted(used & set(seeds)):
        raise LabError(
            f"{override or 'seed'} is not allowed: {experiment.directory.path} used {format_seeds(repeated)}, so fresh"
            f" ones are needed. Choose others, as seed={FIRST_SEED}..{FIRST_SEED + NUM_SEEDS - 1}."
        )
    return seeds


def best_trials(experiment: Experiment, top: int) -> list[Ranked]:
    """Return the best Trials of an Experiment, its defaults apart."""
    return [ranked for ranked in experiment.ranking if ranked.trial is not experiment.defaults][:top]


def list_points(trials: Sequence[Ranked], defaults: bool) -> list[list[str]]:
    """Return the overrides of each Trial that is trained again, and none for the default settings, which come first."""
    points = [list(ranked.trial.directory.read_point()["overrides"]) for ranked in trials]
    return [*([[]] if defaults else []), *points]


def validation_command(
    experiment: Experiment, points: Sequence[Sequence[str]], seeds: Sequence[int], how: Sequence[str]
) -> list[str]:
    """Return the arguments that train points of an Experiment on fresh seeds.

    Args:
        experiment: what is validated.
        points: as `list_points` gives them.
        seeds: the fresh seeds.
        how: overrides that decide how it is run, and not what.

    Raises:
        LabError: an override would change what is trained.
    """
    for override in how:
        key = _key(override)
        if not (key.startswith(("hydra/", "hydra.", "provenance.")) or key in HOW):
            raise LabError(
                f"{override} is not allowed: validate trains the settings of the Experiment as they are."
                f"{did_you_mean(key, HOW)} Allowed are {', '.join(HOW)}, hydra/launcher and other keys of hydra."
            )
    options, fixed = _fixed_overrides(experiment)
    changed = {_key(override) for override in how}
    kept = [override for override in fixed if _key(override) not in changed]
    texts = (f"[{','.join(map(quote, point))}]" for point in points)
    return [
        "--multirun",
        *options,
        *kept,
        *how,
        f"points=[{','.join(texts)}]",
        f"seed={','.join(map(str, seeds))}",
        f"hydra.sweep.dir={quote(str(experiment.directory.validation.path))}",
    ]


def _fixed_overrides(experiment: Experiment) -> tuple[list[str], list[str]]:
    """Return Hydra's options and the overrides that all Trials of an Experiment have in common."""
    options, overrides = read_command(experiment.directory.multirun)
    fixed = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element().lstrip("+~")
        own = (
            key.split(".")[0] in ("seed", *OWN[:2]) or key in ONCE or key.startswith(("hydra/sweeper", "hydra.sweeper"))
        )
        if not (own or override.is_sweep_override()):
            fixed.append(str(override.input_line))
    return options, fixed


def require_same_settings(experiment: Experiment, trials: Sequence[Ranked]) -> None:
    """Raise LabError if the settings of a Trial would be other ones now, because the config has changed since."""
    options, fixed = _fixed_overrides(experiment)
    for ranked in trials:
        session = ranked.trial.completed[0].directory
        recorded = read_spec(session)
        spec, _ = compose([*fixed, *ranked.trial.directory.read_point()["overrides"]], options, recorded["seed"])
        require_same_spec(
            recorded, replace(spec, name=recorded["name"]), session.path, "The config has changed since: put it back."
        )


def is_complete(experiment: Experiment, points: Sequence[Sequence[str]], seeds: Sequence[int]) -> bool:
    """Return whether every Session of a validation has ended, so that there is nothing to train."""
    trials = experiment.directory.validation.trials()
    known = {tuple(trial.read_point()["overrides"]): trial for trial in trials if trial.point.exists()}
    statuses = [
        known[tuple(point)].session(seed).find_status() if tuple(point) in known else None
        for point in points
        for seed in seeds
    ]
    return all(status and status["state"] in ENDED for status in statuses)


def list_notes(experiment: Experiment, trials: Sequence[Ranked]) -> list[str]:
    """Return sentences on what stands in the way of a plain comparison: a search that goes on, other code."""
    notes = []
    remaining = experiment.planned - sum(trial.state in ENDED for trial in experiment.trials)
    if remaining:
        notes.append(
            f"{plural(remaining, 'Trial')} of {experiment.directory.path} did not end: others may rank higher."
        )
    sessions = [session.directory for ranked in trials for session in ranked.trial.completed]
    if names := dict.fromkeys(name for session in sessions for name in changed_since(session)):
        notes.append(
            f"{experiment.directory.path} was trained with other code of {', '.join(names)} than the current one, which"
            " is what trains on the fresh seeds."
        )
    return notes


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
