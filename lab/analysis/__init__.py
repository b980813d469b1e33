"""Analysis of run directories: pure functions of their files, which import nothing of training."""

from __future__ import annotations

from pathlib import Path

from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.files import write_atomically, write_json, write_text


def analyze(path: Path) -> list[Path]:
    """Write the metrics and pictures of a run directory of any level, finished or not, and return the files.

    The Trials of an Experiment get their metrics too, but no pictures: see `lab.sweep.drawing`. A Trial that stands
    alone gets a card as well; one of an Experiment is described by its page.

    Raises:
        LabError: it is not a run directory, or a file in it cannot be read.
    """
    kind = find_level(path)
    if kind == "session":
        session = RunDir(path)
        analyze_session(session)
        return [session.results, session.plot]
    if kind == "trial":
        trial = TrialDir(path)
        analyze_trial(trial)
        draw_trial(trial)
        if trial.number is not None:
            return [trial.results, trial.plot]
        _write_card(trial)
        return [trial.results, trial.plot, trial.card]
    sweep = SweepDir(path)
    analyze_experiment(sweep)
    return [sweep.results, sweep.table, sweep.plot, sweep.report]


def analyze_session(directory: RunDir) -> None:
    """Write session.json and session.png."""
    from lab.analysis.plot_session import plot_session
    from lab.analysis.session import read_tables, session_results

    tables = read_tables(directory)
    write_json(directory.results, session_results(tables))
    write_atomically(directory.plot, plot_session(tables))


def analyze_trial(directory: TrialDir) -> None:
    """Write trial.json."""
    from lab.analysis.trial import read_trial, trial_results

    write_json(directory.results, trial_results(read_trial(directory)))


def draw_trial(directory: TrialDir) -> None:
    """Write trial.png, with the statistic over seeds by which the sweep ranks."""
    from lab.analysis.objective import Objective
    from lab.analysis.plot_trial import plot_trial
    from lab.analysis.trial import read_trial

    sweep = SweepDir(directory.path if directory.number is None else directory.path.parent)
    found = sweep.find_sweep(["objective"], "The mean over seeds is drawn.")
    statistic = Objective.from_dict(found["objective"]).statistic if found else "mean"
    write_atomically(directory.plot, plot_trial(read_trial(directory), statistic))


def _write_card(directory: TrialDir) -> None:
    from lab.analysis.card import write_card
    from lab.analysis.trial import read_trial

    write_text(directory.card, write_card(read_trial(directory)))


def analyze_experiment(directory: SweepDir) -> None:
    """Write trial.json of every Trial, experiment.json, trials.csv, experiment.png and report.html.

    If the best Trials were validated, the card of the one that is best on fresh seeds is written in `validation/`.
    """
    from lab.analysis.across import rank_settings, trials_table
    from lab.analysis.card import write_card
    from lab.analysis.experiment import experiment_results, read_experiment
    from lab.analysis.plot_experiment import plot_experiment
    from lab.analysis.report import write_report
    from lab.analysis.trial import read_trial, trial_results
    from lab.analysis.validation import read_validation

    experiment = read_experiment(directory)
    for trial in experiment.trials:
        whole = read_trial(trial.directory) if trial.extended else trial
        write_json(trial.directory.results, trial_results(whole))
    validation = read_validation(experiment)
    across = rank_settings(experiment)
    more = {"across": across, "validation": validation}
    results = {**experiment_results(experiment), **{name: each.to_dict() for name, each in more.items() if each}}
    write_json(directory.results, results)
    if validation and validation.winner:
        card = TrialDir(directory.validation.path).card
        write_text(card, write_card(validation.winner.fresh, validation))
    write_text(directory.table, trials_table(experiment, across).to_csv(index=False))
    write_atomically(directory.plot, plot_experiment(experiment, across))
    write_text(directory.report, write_report(experiment, validation, across))
