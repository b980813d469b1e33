"""report.html: an Experiment in one page, from its ranking through its Trials down to every Session.

The page holds its data as JSON and is drawn by a script of its own, both in report.html beside this file: no server, no
network, and links that are relative to the Experiment's directory. What many Trials share (specs, provenance,
tracebacks, frames of curves) is held once, and curves are thinned and rounded, so that 1,000 Sessions stay a few MB.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lab.analysis.experiment import Experiment, Ranked
from lab.analysis.plotting import reference_of, session_curve, trial_curve
from lab.analysis.session import Session
from lab.analysis.statistics import STATISTICS, interval
from lab.analysis.trial import Trial, trial_results
from lab.common.text import canonical
from lab.errors import LabError
from lab.run.files import read_json
from lab.run.schemas import FIGURES, PROVENANCE

POINTS = 120  # most points of a curve
DIGITS = 6  # significant digits of figures; specs keep all of theirs
CURVES = ("return", "eval_return", "entropy")  # columns of metrics.csv that have curves, besides the losses
PACKAGES = ("torch", "numpy", "gymnasium")  # those whose versions are shown
HERE = ("start", "end", "stack", "directory")  # what in provenance.json is of one Session, or of no use elsewhere

Curve = tuple[np.ndarray, np.ndarray]  # frames [T], and lines [k, T] or one [T]
Pool = dict[str, int]  # values that are held once, as JSON, and the place of each


def write_report(experiment: Experiment) -> str:
    """Return report.html, as text; the same files give the same text.

    A directory that is half finished has a report too: what is missing is shown as missing.
    """
    # "<" is all that could end the element that holds the data, or begin another.
    data = json.dumps(payload(experiment), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {"title": html.escape(f"{_name(experiment)}: Experiment"), "payload": data}
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(title|payload)\}\}", lambda match: parts[match[1]], template)


def payload(experiment: Experiment) -> dict[str, Any]:
    """Return what the page shows, as plain data that JSON can hold.

    `trials` come in the order of the ranking, and after it those that are not ranked. A figure of a Trial is a list: n,
    and value, low and high of each of `statistics`. A curve is a list: its place in `axes` (frames), an exponent of 10,
    and lists of whole numbers to multiply with it: values, then low and high ends if there is an interval. `error` and
    `provenance` of a Session are places in `texts` and `provenances`. `common` is what all specs share.
    """
    tables = [session.tables for trial in experiment.trials for session in trial.sessions if session.tables]
    found = dict.fromkeys(column for each in tables for column in each.metrics.columns)
    # The entropy loss is left out: it is the entropy, but for a weight and a sign.
    losses = [column for column in found if column.endswith("_loss") and column != "entropy_loss"]
    columns = [column for column in (*CURVES, *losses) if column in found]
    pools: tuple[Pool, Pool, Pool] = ({}, {}, {})
    axes, texts, provenances = pools
    common = _common([trial.spec for trial in experiment.trials if trial.spec])

    def of_trial(trial: Trial, ranked: Ranked | None, reason: str | None) -> dict[str, Any]:
        results = trial_results(trial)
        return {
            "number": trial.number,
            "state": trial.state,
            "reason": reason,
            "rank": ranked and ranked.rank,
            "values": ranked and [_short(value) for value in ranked.values],
            "lows": ranked and [_short(value) for value in ranked.lows],
            "highs": ranked and [_short(value) for value in ranked.highs],
            "improvement": ranked and ranked.improvement,
            "hyperparameters": [_plain(trial.value(key)) for key in experiment.hyperparameters],
            "spec": {key: _plain(value) for key, value in trial.spec.items() if key not in common},
            "figures": {name: _flat(each) for name, each in results["figures"].items() if each["n"]},
            "consistency": _short(results["consistency"]),
            "curves": curves(lambda column: _mean_and_interval(*trial_curve(trial, column))),
            "sessions": [of_session(session) for session in trial.sessions],
        }

    def of_session(session: Session) -> dict[str, Any]:
        facts, tables = _provenance(session), session.tables
        return {
            "seed": str(session.seed),  # as text: it may be larger than what a script's numbers hold
            "state": session.state,
            "frame": session.frame,
            "frames": session.frames,
            "figures": {name: _short(value) for name, value in session.figures.items() if value is not None},
            "frames_per_second": _frames_per_second(session),
            "files": _files(session, experiment.directory.path),
            "error": None if session.error is None else _place(texts, session.error),
            "start": facts.get("start"),
            "end": facts.get("end"),
            "provenance": _place(provenances, _shown(facts)) if facts else None,
            "curves": curves(lambda column: session_curve(tables, column)) if tables else {},
        }

    def curves(curve: Callable[[str], Curve]) -> dict[str, list[Any]]:
        drawn = {column: _thinned(*curve(column)) for column in columns}
        return {column: _packed(frames, lines, axes) for column, (frames, lines) in drawn.items() if len(frames)}

    sweep = experiment.sweep
    return {
        "name": _name(experiment),
        "search": sweep.get("search"),
        "swept": sweep.get("hyperparameters") or experiment.hyperparameters,
        "planned": max(sweep.get("trials") or 0, len(experiment.trials)),
        "seeds": max([len(sweep.get("seeds") or ()), *(len(trial.sessions) for trial in experiment.trials)]),
        "objective": experiment.objective.to_dict(),
        "reference": reference_of([session for trial in experiment.trials for session in trial.sessions]),
        "hyperparameters": experiment.hyperparameters,
        "importance": {key: _short(share) for key, share in experiment.importance.items()},
        "common": {key: _plain(value) for key, value in common.items()},
        "figures": list(FIGURES),
        "statistics": list(STATISTICS),
        "columns": columns,
        "trials": [
            *(of_trial(ranked.trial, ranked, None) for ranked in experiment.ranking),
            *(of_trial(trial, None, reason) for trial, reason in experiment.unranked),
        ],
        "axes": _held(axes),
        "texts": _held(texts),
        "provenances": _held(provenances),
    }


def _place(pool: Pool, value: Any) -> int:
    return pool.setdefault(json.dumps(value), len(pool))


def _held(pool: Pool) -> list[Any]:
    return [json.loads(text) for text in pool]


def _name(experiment: Experiment) -> str:
    name = str(experiment.sweep.get("name") or experiment.directory.path.resolve().name)
    return name.encode(errors="replace").decode()  # a name on disk need not be text


def _common(specs: list[dict[str, Any]]) -> dict[str, Any]:
    first, *others = specs or [{}]
    return {
        key: value
        for key, value in first.items()
        if all(key in spec and canonical(spec[key]) == canonical(value) for spec in others)
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what it has no word for becomes text, `NaN` and `Infinity` too."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)


def _short(value: float | None) -> float | int | None:
    """Return a number with DIGITS digits, or whole if it is; null if it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")


def _flat(summary: dict[str, Any]) -> list[float | int | None]:
    return [summary["n"], *(_short(summary[name][end]) for name in STATISTICS for end in ("value", "low", "high"))]


def _frames_per_second(session: Session) -> float | int | None:
    if session.tables is None or not len(session.tables.timing):
        return None
    frames, seconds = (session.tables.timing[column].to_numpy() for column in ("frame", "seconds"))
    return _short(frames[-1] / seconds.sum()) if seconds.sum() > 0 else None


def _mean_and_interval(frames: np.ndarray, values: np.ndarray) -> Curve:
    """Return the mean, low and high [3, T] of values over Sessions [n, T]; of one Session its values alone."""
    frames, values = _thinned(frames, values)  # first, as an interval costs more for each frame
    if len(values) < 2 or not len(frames):
        return frames, values
    return frames, np.stack([values.mean(axis=0), *interval(values, "mean")])


def _thinned(frames: np.ndarray, lines: np.ndarray) -> Curve:
    if len(frames) <= POINTS:
        return frames, lines
    places = np.linspace(0, len(frames) - 1, POINTS).round().astype(int)  # the first and the last stay
    return frames[places], lines[..., places]


def _packed(frames: np.ndarray, lines: np.ndarray, axes: Pool) -> list[Any]:
    peak = np.abs(lines).max()
    exponent = max(math.floor(math.log10(peak)) - 3, -300) if peak else 0
    whole = np.rint(np.atleast_2d(lines) / 10.0**exponent).astype(int).tolist()
    return [_place(axes, frames.astype(int).tolist()), exponent, *whole]


def _files(session: Session, above: Path) -> dict[str, str]:
    """Return addresses, relative to the Experiment, of the directory of a Session and of what is in it to be read."""
    directory = session.directory
    named = {"directory": directory.path, "log": directory.log, "plot": directory.plot, "spec": directory.spec}
    return {
        name: urllib.parse.quote(os.fsencode(path.relative_to(above))) + "/" * (path == directory.path)
        for name, path in named.items()
        if path.exists()
    }


def _provenance(session: Session) -> dict[str, Any]:
    try:
        known = session.directory.provenance
        return read_json(known, PROVENANCE) if known.exists() else {}
    except LabError:
        return {"git": {"note": "provenance.json cannot be read"}}


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    packages = {name: version for name, version in facts.get("packages", {}).items() if name in PACKAGES}
    return {**{key: value for key, value in facts.items() if key not in HERE}, "packages": packages}
