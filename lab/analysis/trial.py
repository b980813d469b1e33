"""A Trial as its files tell it: Sessions that differ in nothing but the seed, and figures over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lab.analysis.session import Session, Tables, read_session, read_spec
from lab.analysis.statistics import std, summarize_columns
from lab.common.text import canonical, flatten
from lab.errors import LabError
from lab.run.directory import TrialDir
from lab.run.status import combined_state

VARIES = "varies with the seed"  # in place of a value of a spec
# What is said of one seed that did not complete, and of several.
STANDING = {
    "pending": ("has not begun", "have not begun"),
    "running": ("is running", "are running"),
    "failed": ("failed", "failed"),
    "pruned": ("was pruned", "were pruned"),
    "interrupted": ("was interrupted", "were interrupted"),
}


@dataclass
class Trial:
    """What is known of a Trial, finished or not.

    Attributes:
        directory: where it is.
        number: in its Experiment; null if it stands alone.
        hyperparameters: what the sweep set, by key.
        sessions: one for each seed asked for, in order; those that never began are `pending`.
    """

    directory: TrialDir
    number: int | None
    hyperparameters: dict[str, Any]
    sessions: list[Session]

    @property
    def completed(self) -> list[Session]:
        """Sessions that completed: the only ones that any figure stands on."""
        return [session for session in self.sessions if session.state == "completed"]

    @property
    def state(self) -> str:
        """How the Trial stands: completed only if every Session is, failed as soon as one is."""
        return combined_state(session.state for session in self.sessions)

    @cached_property
    def common(self) -> dict[str, Any]:
        """The spec that its Sessions share, without the seed; empty if none has written it.

        VARIES stands for what is not the same in all of them, as a value that is interpolated from the seed. Specs
        that cannot be read are left out.
        """
        specs = [spec for session in self.sessions if (spec := _spec_if_any(session))]
        return common_spec([{key: value for key, value in spec.items() if key != "seed"} for spec in specs])

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The same by dotted key."""
        return flatten(self.common)

    def value(self, key: str) -> Any:
        """Return the value of a hyperparameter by its dotted key: what the sweep set, or else what the spec has."""
        return self.hyperparameters[key] if key in self.hyperparameters else self.spec.get(key)

    def values(self, figure: str) -> np.ndarray:
        """Return a figure of each completed Session that has it [n]."""
        found = [session.figure(figure) for session in self.completed]
        return np.array([value for value in found if value is not None], float)

    def curve(self, column: str = "return") -> tuple[np.ndarray, np.ndarray]:
        """Return frames [T] and a column of metrics.csv by completed Session [n, T], up to the shortest of them.

        Where Sessions log at other frames than the first, as their horizons depend on the seed, what they logged last
        by each of its frames is taken.
        """
        tables = [session.tables for session in self.completed if session.tables is not None]
        if not tables or any(column not in table.metrics for table in tables):
            return np.empty(0), np.empty((len(tables), 0))
        length = min(len(table.metrics) for table in tables)
        frames = tables[0].metrics["frame"].to_numpy()[:length]
        if any((table.metrics["frame"].to_numpy()[:length] != frames).any() for table in tables):
            return _curve_by_frame(tables, column)
        return frames, np.stack([table.metrics[column].to_numpy(float)[:length] for table in tables])


def _curve_by_frame(tables: Sequence[Tables], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames [T] of the first Session, and what each had logged last by then [n, T], as long as all log."""
    logged = [table.metrics["frame"].to_numpy() for table in tables]
    frames = logged[0][logged[0] <= min(each[-1] for each in logged)] if all(map(len, logged)) else np.empty(0)
    rows = []
    for table, each in zip(tables, logged, strict=True):
        places = np.searchsorted(each, frames, side="right") - 1
        values = np.append(table.metrics[column].to_numpy(float), np.nan)
        rows.append(values[places])  # of -1, where nothing is logged yet, the NaN at the end
    return frames, np.stack(rows)


def _spec_if_any(session: Session) -> dict[str, Any]:
    """Return the spec of a Session; empty if it has written none, or none that can be read."""
    if session.tables is not None:
        return session.tables.spec
    try:
        return read_spec(session.directory)
    except LabError:
        return {}


def common_spec(specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what specs share, with VARIES for the values that differ between them; empty if there are none."""
    if not specs or all(canonical(spec) == canonical(specs[0]) for spec in specs):
        return specs[0] if specs else {}
    common: dict[str, Any] = {}
    for key in dict.fromkeys(key for spec in specs for key in spec):
        values = [spec.get(key, VARIES) for spec in specs]
        if all(isinstance(value, dict) and value for value in values):
            common[key] = common_spec(values)
        else:
            common[key] = values[0] if all(canonical(value) == canonical(values[0]) for value in values) else VARIES
    return common


def read_trial(directory: TrialDir) -> Trial:
    """Read a Trial.

    Raises:
        LabError: it holds no Session.
    """
    point = directory.find_point()
    seeds = sorted({*point["seeds"], *directory.seeds()})
    if not seeds:
        raise LabError(f"{directory.path} holds no Session.")
    sessions = [read_session(directory.session(seed), seed) for seed in seeds]
    return Trial(directory, directory.number, point["hyperparameters"], sessions)


def trial_results(trial: Trial) -> dict[str, Any]:
    """Return what trial.json holds: figures over the completed Sessions of a Trial, and how the others stand.

    It is deterministic: no time, host or absolute path is in it.
    """
    return {
        "sessions": {"planned": len(trial.sessions), **counts(session.state for session in trial.sessions)},
        "seeds": [session.seed for session in trial.completed],
        "figures": summaries(trial),
        "consistency": consistency(trial),
        "not_completed": [not_completed(trial, session) for session in trial.sessions if session.state != "completed"],
    }


def summaries(trial: Trial) -> dict[str, dict[str, Any]]:
    """Return lab.analysis.statistics.summarize of every figure over the completed Sessions of a Trial."""
    values = {figure: trial.values(figure) for session in trial.completed for figure in session.figures}
    made: dict[str, dict[str, Any]] = {figure: {} for figure in values}
    for n in {len(found) for found in values.values()}:
        together = [figure for figure, found in values.items() if len(found) == n]
        made.update(zip(together, summarize_columns(np.stack([values[figure] for figure in together], 1)), strict=True))
    return made


def counts(states: Iterable[str]) -> dict[str, int]:
    """Return how many are completed, even if none is, and how many are in each other state that occurs."""
    found = Counter(states)
    return {"completed": found.pop("completed", 0), **{state: found[state] for state in sorted(found)}}


def not_completed(trial: Trial, session: Session) -> dict[str, Any]:
    """Return how a Session without a result stands, why in one line, and where its log is, seen from the Trial."""
    lines = (session.error or "").strip().splitlines()
    log = f"{session.directory.path.name}/{session.directory.log.name}"
    return {
        "seed": session.seed,
        "state": session.state,
        "error": lines[-1] if lines else None,
        "log": None if session.state == "pending" else log,
    }


def standing(sessions: Sequence[Session]) -> list[str]:
    """Say how those of some Sessions stand that did not complete: `seeds 0 and 2 failed`, `seed 3 has not begun`."""
    said = []
    for state, words in STANDING.items():
        seeds = [session.seed for session in sessions if session.state == state]
        said += [f"{of_seeds(seeds)} {words[len(seeds) > 1]}"] if seeds else []
    return said


def of_seeds(seeds: Sequence[int]) -> str:
    """Name one seed or several, in words."""
    words = [str(seed) for seed in seeds]
    return f"seed {words[0]}" if len(words) == 1 else f"seeds {', '.join(words[:-1])} and {words[-1]}"


def consistency(trial: Trial) -> float | None:
    """Return how alike the curves of the completed Sessions of a Trial are; 1 if they are the same.

    With s_ij the strength of Session j at log point i, it is 1 - sum_i 2 std_j(s_ij) / sum_i mean_j(s_ij), over the log
    points at which every Session had finished an episode. The deviation is that of a sample (ddof=1), as everywhere
    over seeds: that of the values themselves (ddof=0) grows with their number, so that two seeds would look more alike
    than ten.

    Returns:
        Null with fewer than two Sessions, if the return of random actions is unknown, or if the mean strength is 0.
    """
    tables = [session.tables for session in trial.completed if session.tables is not None]
    known = {table.reference["random_return"] for table in tables}
    if len(tables) < 2 or len(known) > 1 or None in known:
        return None
    strengths = trial.curve("return")[1] - tables[0].reference["random_return"]
    strengths = strengths[:, np.isfinite(strengths).all(axis=0)]
    total = strengths.mean(axis=0).sum()
    return float(1 - 2 * std(strengths, axis=0).sum() / total) if total else None
