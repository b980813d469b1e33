"""report.html: an Experiment in one page, from its ranking through its Trials down to every Session.

The page holds Plotly, its data and a small script, loads nothing from a network, and links to files relative to the
Experiment's directory. Jinja2 escapes all text, so a stranger's run directory stays data.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.analysis.across import Across
from lab.analysis.card import origins, read_provenance
from lab.analysis.experiment import Experiment, Ranked
from lab.analysis.report_figures import figure_data, profile_figure
from lab.analysis.scale import is_number
from lab.analysis.session import Session
from lab.analysis.statistics import MIN_SEEDS, STATISTICS
from lab.analysis.text import (
    format_hyperparameter,
    importance_caveat,
    note_on_extensions,
    note_on_seeds,
    render,
    short_names,
)
from lab.analysis.trial import VARIES, Trial, common_spec, consistency, count_states, unfinished_session
from lab.analysis.validation import Validation
from lab.common.text import (
    canonical,
    format_estimate,
    format_interval,
    format_number,
    format_seeds,
    plural,
)
from lab.run.schemas import METRICS, meaning

MAIN_METRICS = ("eval_best", "strength", "frames_to_solve", "sample_efficiency", "stability", "best")
MAX_COLUMNS = 9  # of hyperparameters and metrics, beyond which metrics are shown on demand: as fit 1,280 pixels
SESSION_METRICS = ("return", "best", "eval_return", "eval_best")
AGGREGATES = {"iqm": "interquartile mean", "lower": "lower end of the mean's 95 % interval"}


@dataclass(frozen=True)
class Column:
    """A column of the table of Trials; an `extra` one is shown on demand."""

    key: str
    label: str = ""
    title: str | None = None
    number: bool = False
    descending: bool = False  # when sorted first
    extra: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of the table of Trials: its text, the value to sort and filter by, a smaller note, and a CSS class."""

    text: str
    value: Any
    note: str = ""
    style: str = ""
    title: str = ""


def write_report(experiment: Experiment, validation: Validation | None = None, across: Across | None = None) -> str:
    """Return the text of report.html; the same files give the same text, of an unfinished directory too."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    ranking = sorted(experiment.ranking, key=lambda ranked: ranked.rank)  # the best of each environment come first
    trials = [(ranked.trial, ranked, "") for ranked in ranking]
    everything = [*trials, *((trial, None, reason) for trial, reason in experiment.unranked)]
    specs = [trial.spec for trial in experiment.trials if trial.spec]
    aggregate = experiment.objective.aggregate
    columns = _columns(experiment)
    return render(
        "report.html.j2",
        experiment=experiment,
        validation=validation,
        across=across,
        aggregate=AGGREGATES.get(aggregate, aggregate),
        facts=_facts(experiment),
        failures=_failures(experiment),
        columns=columns,
        rows=[_row(experiment, columns, *each) for each in everything],
        common={key: value for key, value in common_spec(specs).items() if value != VARIES},
        caveat=importance_caveat(min(len(part.ranking) for part in experiment.by_environment.values())),
        min_seeds=MIN_SEEDS,
        data=figure_data(experiment) | {"across": profile_figure(across) if across and across.ranking else None},
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - a library's own code
    )


def _facts(experiment: Experiment) -> dict[str, Any]:
    """Return what the head of the page says: environments, algorithms, and numbers of Trials and Sessions."""
    trials, sweep = experiment.trials, experiment.sweep
    sessions = [session for trial in trials for session in trial.sessions]
    seeds = {len(trial.sessions) for trial in trials} or {len(sweep.get("seeds") or ())}
    states = count_states(trial.state for trial in trials)
    pending = states.pop("pending", 0) + experiment.planned - len(trials)
    names = {
        key: ", ".join(dict.fromkeys(str(trial.spec[f"{key}.{end}"]) for trial in trials if trial.spec))
        for key, end in (("env", "id"), ("algo", "name"))
    }
    states.pop("completed")
    counts = {"Trials planned": experiment.planned, "ranked": len(experiment.ranking), **states, "not started": pending}
    completed = sum(session.state == "completed" for session in sessions)
    return {
        **names,
        "seeds": plural(max(seeds), "seed") if len(seeds) == 1 else f"{min(seeds)} to {plural(max(seeds), 'seed')}",
        "notes": [
            note_on_seeds([len(ranked.trial.sessions) for ranked in experiment.ranking]),
            note_on_extensions([trial.number or 0 for trial in trials if trial.extended]),
        ],
        "swept": sweep.get("hyperparameters") or experiment.hyperparameters,
        "counts": {name: count for name, count in counts.items() if count or name == "ranked"},
        "completed": completed,
        "sessions": experiment.planned_sessions,
    }


def _failures(experiment: Experiment) -> list[tuple[str, int, list[int | None]]]:
    """Return the reasons of failed Sessions, their counts and the numbers of their Trials, most frequent first."""
    reasons: dict[str, list[int | None]] = {}
    for trial in experiment.trials:
        for session in trial.sessions:
            if session.state == "failed":
                reason = unfinished_session(session)["error"] or "no traceback"
                reasons.setdefault(reason, []).append(trial.number)
    failures = [(reason, len(numbers), list(dict.fromkeys(numbers))) for reason, numbers in reasons.items()]
    return sorted(failures, key=lambda failure: -failure[1])


def _columns(experiment: Experiment) -> list[Column]:
    objective, trials = experiment.objective, experiment.trials
    aggregate = AGGREGATES.get(objective.aggregate, objective.aggregate)
    several = len(experiment.by_environment) > 1  # and a column says which
    columns = [Column("rank", number=True), Column("trial", "Trial")]
    if several:
        columns.insert(1, Column("environment", title="Trials are ranked within each environment"))
    columns.append(Column("state", extra=all(trial.state == "completed" for trial in trials)))
    columns.append(Column("sessions", "Sessions", "completed, of those planned", descending=True))
    for metric in objective.metrics:
        columns.append(Column(metric, f"{metric}, {aggregate}", meaning(metric), number=True, descending=True))
    keys = [key for key in experiment.hyperparameters if not (several and key in ("env", "env.id"))]
    for key, name in short_names(keys).items():
        numbers = all(trial.value(key) is None or is_number(trial.value(key)) for trial in trials)
        columns.append(Column(key, name, key, number=numbers))
    room = MAX_COLUMNS - len(keys)
    own = [name for trial in trials for name in trial.summaries if name not in METRICS]
    for name in dict.fromkeys([*own, *MAIN_METRICS, "consistency", *METRICS]):
        if name not in objective.metrics and any(_mean(trial, name) is not None for trial in trials):
            extra = room <= 0 or name not in (*own, *MAIN_METRICS)
            columns.append(Column(name, "", meaning(name), number=True, descending=True, extra=extra))
            room -= 1
    return columns


def _mean(trial: Trial, name: str) -> float | None:
    if name == "consistency":
        return consistency(trial)
    value: float | None = trial.summaries[name]["mean"]["value"] if name in trial.summaries else None
    return value


def _row(
    experiment: Experiment, columns: Sequence[Column], trial: Trial, ranked: Ranked | None, reason: str
) -> dict[str, Any]:
    """Return a Trial's cells in the table, and what opens below them."""
    ranking = experiment.by_environment.get(trial.environment, experiment).ranking
    others = [each.trial for each in ranking[:2] if each.trial is not trial]
    return {
        "trial": trial,
        "ranked": ranked,
        "of": len(ranking),
        "reason": reason,
        "cells": [_cell(experiment, column.key, trial, ranked) for column in columns],
        "sessions": _sessions(experiment, trial),
        "metrics": _metrics(trial),
        "spec": _spec(trial, others[0] if others else None),
        "errors": _errors(trial.sessions),
        "origins": origins(trial.sessions, private=True),
    }


def _cell(experiment: Experiment, key: str, trial: Trial, ranked: Ranked | None) -> Cell:
    n, metrics = len(trial.completed), experiment.objective.metrics
    if key == "rank":
        front = " ◆" if len(metrics) > 1 and ranked in experiment.front else ""
        return Cell(f"{ranked.rank}{front}", ranked.rank) if ranked else Cell("-", None)
    if key == "trial":
        return Cell(trial.name, trial.number, "defaults" if trial is experiment.defaults else "")
    if key == "environment":
        return Cell(trial.environment, trial.environment)
    if key == "state":
        return Cell(trial.state, trial.state, style="worse" if trial.state == "failed" else "")
    if key == "sessions":
        failed = any(session.state == "failed" for session in trial.sessions)
        return Cell(f"{n} of {len(trial.sessions)}", n, style="worse" if failed else "")
    if key in metrics:
        if not ranked:
            return Cell("-", None)
        estimate = ranked.estimates[metrics.index(key)]
        note = "one seed: no interval" if estimate["low"] is None else format_interval(estimate, key)
        return Cell(format_number(estimate["value"], key), estimate["value"], note)
    if key in experiment.hyperparameters:
        value = trial.value(key)
        text = format_hyperparameter(value)
        return Cell(text, value if is_number(value) else text, title=str(value))
    mean, count = _mean(trial, key), trial.summaries.get(key, {"n": n})["n"]
    return Cell(format_number(mean, key), mean, f"({count} of {n})" if mean is not None and count < n else "")


def _sessions(experiment: Experiment, trial: Trial) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of the table of Sessions, and a row for each with links to its files."""
    names = [
        name
        for name in dict.fromkeys([*SESSION_METRICS, *experiment.objective.metrics])
        if any(session.metrics.get(name) is not None for session in trial.sessions)
    ]
    rows = []
    for session in trial.sessions:
        facts, of = read_provenance(session), "" if session.state == "completed" else f" of {session.frames:,}"
        times = (str(facts.get(key) or "").replace("T", " ").replace("+00:00", " UTC") for key in ("start", "end"))
        metrics = [format_number(session.metric(name), name) for name in names]
        frames = f"{session.frame:,}{of}" if session.frames else "-"
        cells = [frames, *metrics, _frames_per_second(session), *times]
        rows.append({"session": session, "cells": cells, "files": _files(session, experiment.directory.path)})
    return ["seed", "state", "frames", *names, "frames/s", "start", "end", "files"], rows


def _frames_per_second(session: Session) -> str:
    if session.tables is None or not len(session.tables.timing):
        return "-"
    seconds = float(session.tables.timing["seconds"].sum())
    return f"{session.tables.timing['frame'].iloc[-1] / seconds:,.0f}" if seconds > 0 else "-"


def _files(session: Session, root: Path) -> dict[str, str]:
    """Return links, relative to the Experiment, to the directory of a Session and its readable files."""
    directory = session.directory
    paths = {"directory": directory.path, "log": directory.log, "plot": directory.plot, "spec": directory.spec}
    return {
        name: urllib.parse.quote(os.fsencode(path.relative_to(root))) + "/" * (path == directory.path)
        for name, path in paths.items()
        if path.exists()
    }


def _metrics(trial: Trial) -> list[list[str]]:
    """Return a row for each metric: its name, n, and each statistic with its interval."""
    rows = []
    for name in dict.fromkeys([*MAIN_METRICS, *METRICS, *trial.summaries]):
        summary = trial.summaries.get(name)
        if summary and summary["n"]:
            estimates = [format_estimate(summary[statistic], name) for statistic in STATISTICS]
            rows.append([name, str(summary["n"]), *estimates])
    return rows


def _spec(trial: Trial, other: Trial | None) -> tuple[list[str], list[list[str]]]:
    """Return where the spec differs from that of the best Trial (of the best Trial: from the runner-up)."""
    trials = [trial, other] if other else [trial]
    keys = sorted({key for each in trials for key in each.spec})
    rows = [
        [key, *(format_hyperparameter(each.spec[key]) if key in each.spec else "-" for each in trials)] for key in keys
    ]
    differ = [canonical(trial.spec.get(key)) != canonical(other.spec.get(key)) for key in keys] if other else []
    columns = ["key", *(each.name for each in trials)]
    return columns, [row for row, differs in zip(rows, differ, strict=True) if differs] if other else []


def _errors(sessions: Sequence[Session]) -> list[tuple[str, str]]:
    """Return the different errors of Sessions, each with a title that names the seeds."""
    groups: dict[tuple[str, str], list[Session]] = {}
    for session in sessions:
        if session.error is not None:
            groups.setdefault((session.state, session.error), []).append(session)
    errors = []
    for (state, error), group in groups.items():
        frames = ", ".join(dict.fromkeys(f"{session.frame:,}" for session in group))
        errors.append((f"{format_seeds([session.seed for session in group])} {state} at frame {frames}", error))
    return errors
