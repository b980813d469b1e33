"""`python -m lab validate DIR`: train the best Trials of an Experiment again on fresh seeds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from lab.command.options import command, option
from lab.common.validation import Count
from lab.errors import LabError, print_to_stderr, visible
from lab.run.directory import SweepDir, find_level
from lab.run.trust import warn_of_foreign_code

NOTES = """The best of many Trials is the luckiest of them too. On seeds that chose nothing it has no luck: validate
says how much of its figure was luck, and compares the best on fresh seeds with the default settings, which are trained
on them as well. Everything goes to DIR/validation; nothing else in DIR changes but its report. Give the command again
to continue what was interrupted, as with resume.

The current code is run, and what DIR names, as with resume: validate only what you trust."""


@dataclass
class Options:
    """Options of the command."""

    top: Count = option(3, "how many of the best Trials are trained again")
    defaults: bool = option(True, "whether the default settings are trained too: those without what was swept")
    save: bool = option(False, "write the settings that are best on fresh seeds to conf/tuned/<algo>_<env>.yaml")
    overwrite: bool = option(False, "let save=true replace a file that is there")


@command(
    "the run directory of an Experiment: a search or a grid",
    Options,
    NOTES,
    overrides="seed=100..109 (the fresh seeds, of which there are ten by default), and how it is run, as parallel=2,"
    " hydra/launcher=slurm, retry=true (failed Sessions again), plan=true (only print what would run)",
)
def main(path: Path, overrides: list[str], options: Options) -> None:
    """Validate an Experiment.

    Raises:
        LabError: there is nothing to validate, a seed is not fresh, or a file would be overwritten.
    """
    level = find_level(path)
    if level != "experiment":
        raise LabError(
            f"{path} holds a {level.capitalize()}: validate takes an Experiment, whose best Trials it trains."
        )
    from lab.analysis.experiment import read_experiment
    from lab.sweep import validation

    warn_of_foreign_code(path, "validate")
    experiment = read_experiment(SweepDir(path))
    validation.require_valid(experiment)
    seeds, how = validation.choose_seeds(experiment, _last(overrides, "seed")), _without(overrides, "seed")
    trials = validation.best_trials(experiment, options.top)
    points = validation.list_points(trials, options.defaults)
    arguments = validation.validation_command(experiment, points, seeds, how)
    if options.save:
        from lab.sweep.tuned import tuned_file

        tuned_file(trials[0].trial, options.overwrite)  # raises before anything is trained
    status = 0
    if how or not validation.is_complete(experiment, points, seeds):
        validation.require_same_settings(experiment, trials)
        for note in validation.list_notes(experiment, trials):
            print_to_stderr(f"Note: {note}")
        status = _train(arguments)
    else:
        from lab.analysis import analyze
        from lab.sweep.summary import print_summary

        analyze(path)
        print_summary(experiment.directory.validation.path)
    if options.save and not status and "plan=true" not in how:
        _save(path, options.overwrite)
    if status:
        sys.exit(status)


def _train(arguments: list[str]) -> int:
    """Run a sweep, and return its exit status."""
    from lab.command import train

    sys.argv = [sys.argv[0], *arguments]
    try:
        train.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _save(path: Path, overwrite: bool) -> None:
    """Write the settings of the winner as a tuned file, and say so."""
    from lab.analysis.experiment import read_experiment
    from lab.analysis.validation import read_validation
    from lab.sweep.tuned import save_tuned

    validation = read_validation(read_experiment(SweepDir(path)))
    if validation is None or validation.winner is None:
        print(visible("Nothing is saved: no Trial has a figure on fresh seeds yet."))
    elif validation.winner_is_default:
        print(visible("Nothing is saved: nothing does better on fresh seeds than the default settings."))
    else:
        made = save_tuned(validation, overwrite)
        print(visible(f"\nSaved {', '.join(map(str, made))}"))
        if validation.verdict not in (None, "better"):
            print(visible(f"Note: these settings are {validation.verdict} than the default settings."))


def _last(overrides: list[str], key: str) -> str | None:
    return next((line for line in reversed(overrides) if line.partition("=")[0] == key), None)


def _without(overrides: list[str], key: str) -> list[str]:
    return [line for line in overrides if line.partition("=")[0] != key]
