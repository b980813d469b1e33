"""A Trial read from its files: Sessions that differ only in the seed, and metrics over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lab.analysis.session import Session, Tables, before_extension, read_session, read_spec, thin
from lab.analysis.statistics import std, summarize_columns
from lab.analysis.text import display_name, format_hyperparameter
from lab.common.text import canonical, flatten, format_seeds, plural
from lab.errors import LabError
from lab.run.directory import TrialDir
from lab.run.status import combined_state

VARIES = "varies with the seed"  # replaces a value of a spec
STATES = {
    "pending": ("has not started", "have not started"),
    "running": ("is running", "are running"),
    "failed": ("failed", "failed"),
    "pruned": ("was pruned", "were pruned"),
    "interrupted": ("was interrupted", "were interrupted"),
}  # of one seed and of several, in sentences


@dataclass
class Trial:
    """A Trial, finished or not."""

    directory: TrialDir
    number: int | None  # in its Experiment; None if it stands alone
    hyperparameters: dict[str, Any]  # values that the sweep set, by key
    sessions: list[Session]  # one for each planned seed, in order

    @property
    def completed(self) -> list[Session]:
        """Completed Sessions: metrics are over these alone."""
        return [session for session in self.sessions if session.state == "completed"]

    @property
    def progress(self) -> str:
        """How many Sessions completed, as in `3 of 4 Sessions`."""
        return f"{len(self.completed)} of {plural(len(self.sessions), 'Session')}"

    @property
    def state(self) -> str:
        """State of the Trial: completed only if every Session is, failed as soon as one is."""
        return combined_state(session.state for session in self.sessions)

    @cached_property
    def common(self) -> dict[str, Any]:
        """The common spec of its Sessions without the seed, VARIES for values that differ; empty if unreadable."""
        specs = [spec for session in self.sessions if (spec := _read_spec_if_any(session))]
        return common_spec([{key: value for key, value in spec.items() if key != "seed"} for spec in specs])

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The common spec by dotted key."""
        return flatten(self.common)

    @cached_property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """lab.analysis.statistics.summarize of every metric over the completed Sessions."""
        values = {metric: self.values(metric) for session in self.completed for metric in session.metrics}
        summaries: dict[str, dict[str, Any]] = {metric: {} for metric in values}
        for n in {len(column) for column in values.values()}:
            group = [metric for metric, column in values.items() if len(column) == n]
            columns = summarize_columns(np.stack([values[metric] for metric in group], 1))
            summaries.update(zip(group, columns, strict=True))
        return summaries

    @cached_property
    def reference(self) -> dict[str, Any]:
        """Reference returns of the environment; empty if the Sessions do not agree."""
        return common_reference(self.sessions)

    @property
    def extended(self) -> bool:
        """Whether `resume DIR frames=...` extended it."""
        return bool(self.spec.get("extended_from"))

    @property
    def environment(self) -> str:
        """The id of the environment and the arguments that it is created with."""
        arguments = {k.removeprefix("env.kwargs."): v for k, v in self.spec.items() if k.startswith("env.kwargs.")}
        if self.spec.get("env.max_episode_steps") is not None:
            arguments["max_episode_steps"] = self.spec["env.max_episode_steps"]
        kwargs = [f"{name}={format_hyperparameter(value)}" for name, value in arguments.items()]
        return " ".join([str(self.spec.get("env.id", "unknown")), *kwargs])

    @property
    def name(self) -> str:
        """Name of its directory, as `trial-003`."""
        return self.directory.path.resolve().name

    @property
    def title(self) -> str:
        """What was trained on what."""
        name = display_name(str(self.spec.get("algo.name")))
        return f"{name} on {self.environment}" if self.spec else self.name

    def value(self, key: str) -> Any:
        """Return a hyperparameter by its dotted key: from the sweep if it set it, otherwise from the spec."""
        return self.hyperparameters[key] if key in self.hyperparameters else self.spec.get(key)

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of each completed Session that has it [n]."""
        values = [session.metric(metric) for session in self.completed]
        return np.array([value for value in values if value is not None], float)

    def log(self, column: str = "return") -> tuple[np.ndarray, np.ndarray]:
        """Return frames [T] and a column of metrics.csv by completed Session [n, T], up to the shortest of them.

        Where Sessions log at other frames than the first, their last value by each of its frames is used.
        """
        tables = [session.tables for session in self.completed if session.tables is not None]
        if not tables or any(column not in table.metrics for table in tables):
            return np.empty(0), np.empty((len(tables), 0))
        logged = [table.metrics["frame"].to_numpy() for table in tables]
        frames = logged[0][logged[0] <= min(each[-1] for each in logged)] if all(map(len, logged)) else np.empty(0)
        rows = []
        for table, each in zip(tables, logged, strict=True):
            places = np.searchsorted(each, frames, side="right") - 1
            values = np.append(table.metrics[column].to_numpy(float), np.nan)
            rows.append(values[places])  # place -1, before the first log, is the NaN at the end
        return frames, np.stack(rows)

    def curve(self, column: str = "return") -> tuple[np.ndarray, np.ndarray]:
        """Return the frames [T] at which every completed Session has a finite value, and the values [n, T], thinned."""
        return thin(*self.log(column))


def _read_spec_if_any(session: Session) -> dict[str, Any]:
    try:
        return session.tables.spec if session.tables is not None else read_spec(session.directory)
    except LabError:
        return {}


def common_spec(specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what specs have in common, VARIES for the values that differ; empty if there are none."""
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


def common_reference(sessions: Iterable[Session]) -> dict[str, Any]:
    """Return the reference returns of the environment of Sessions; empty if they do not agree."""
    references = [session.tables.reference for session in sessions if session.tables]
    return references[0] if references and all(each == references[0] for each in references) else {}


def read_trial(directory: TrialDir, as_planned: bool = False) -> Trial:
    """Read a Trial.

    Args:
        directory: of the Trial.
        as_planned: whether to take Sessions as they were before they were extended, as its Experiment compares them.

    Raises:
        LabError: it holds no Session.
    """
    point = directory.find_point()
    seeds = sorted({*point["seeds"], *directory.seeds()})
    if not seeds:
        raise LabError(f"{directory.path} holds no Session.")
    sessions = [read_session(directory.session(seed), seed) for seed in seeds]
    if as_planned:
        sessions = [before_extension(session) for session in sessions]
    return Trial(directory, directory.number, point["hyperparameters"], sessions)


def trial_results(trial: Trial) -> dict[str, Any]:
    """Return the content of trial.json; deterministic, without times, hosts or absolute paths."""
    return {
        "sessions": {"planned": len(trial.sessions), **count_states(session.state for session in trial.sessions)},
        "seeds": [session.seed for session in trial.completed],
        "metrics": trial.summaries,
        "consistency": consistency(trial),
        "not_completed": [unfinished_session(session) for session in trial.sessions if session.state != "completed"],
    }


def count_states(states: Iterable[str]) -> dict[str, int]:
    """Return how many are completed, even if 0, and how many are in each other state that occurs."""
    counts = Counter(states)
    return {"completed": counts.pop("completed", 0), **{state: counts[state] for state in sorted(counts)}}


def unfinished_session(session: Session, parent: str = "") -> dict[str, Any]:
    """Return the state of a Session without a result, the last line of its error, and its log relative to `parent`."""
    lines = (session.error or "").strip().splitlines()
    log = f"{parent}{session.directory.path.name}/{session.directory.log.name}"
    return {
        "seed": session.seed,
        "state": session.state,
        "error": lines[-1] if lines else None,
        "log": None if session.state == "pending" else log,
    }


def describe_unfinished(sessions: Sequence[Session]) -> list[str]:
    """Return phrases on the Sessions that did not complete: `seeds 0 and 2 failed`, `seed 3 has not started`."""
    phrases = []
    for state, (one, several) in STATES.items():
        seeds = [session.seed for session in sessions if session.state == state]
        if seeds:
            phrases.append(f"{format_seeds(seeds)} {several if len(seeds) > 1 else one}")
    return phrases


def consistency(trial: Trial) -> float | None:
    """Return how alike the curves of the completed Sessions are; 1 if they are equal.

    With s_ij the strength of Session j at log point i, this is 1 - sum_i 2 std_j(s_ij) / sum_i mean_j(s_ij), over the
    log points at which every Session has finished an episode. The deviation is that of a sample (ddof=1), which unlike
    that of the values (ddof=0) does not grow with the number of seeds.

    Returns:
        None with fewer than two Sessions, if the return of random actions is unknown, or if the mean strength is 0.
    """
    tables: list[Tables] = [session.tables for session in trial.completed if session.tables is not None]
    random_returns = {table.reference["random_return"] for table in tables}
    if len(tables) < 2 or len(random_returns) > 1 or None in random_returns:
        return None
    strengths = trial.log("return")[1] - random_returns.pop()
    strengths = strengths[:, np.isfinite(strengths).all(axis=0)]
    total = strengths.mean(axis=0).sum()
    return float(1 - 2 * std(strengths, axis=0).sum() / total) if total else None
