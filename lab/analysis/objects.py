"""Run directories as objects for Python programs and notebooks: their figures, tables and pictures."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.common.text import format_estimate, format_number
from lab.errors import visible
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.progress import TrialProgress, count_states, read_progress
from lab.run.status import combined_state

if TYPE_CHECKING:
    import pandas as pd

SHOWN = (
    "return",
    "best",
    "eval_best",
    "strength",
    "sample_efficiency",
    "stability",
    "frames_to_solve",
)  # in a notebook

SHORT = 3  # figures on a line


@dataclass(frozen=True)
class Result(os.PathLike[str]):
    """A run directory; what is read is read from its files each time, so that it is right while it is trained.

    It can be given wherever a path of a run directory is expected.

    Attributes:
        path: the directory.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # which may be given as a text

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def state(self) -> str:
        """`completed`, `running`, `failed`, `pruned`, `interrupted` or `pending`."""
        return combined_state(session.state for trial in self._progress for session in trial.sessions)

    @property
    def sessions(self) -> list[Session]:
        """Its Sessions that have started, by Trial and seed."""
        return [
            Session(one.directory.path) for trial in self._progress for one in trial.sessions if one.state != "pending"
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics by name: see the table of metrics in docs/reference/run-directory.md."""
        raise NotImplementedError

    @property
    def mean_return(self) -> float | None:
        """The mean return of the last 100 training episodes, over all seeds; None while there is none."""
        raise NotImplementedError

    @property
    def picture(self) -> Path:
        """The picture of its curves, once it has ended."""
        raise NotImplementedError

    @property
    def _progress(self) -> list[TrialProgress]:
        return read_progress(self.path)

    def _figures(self) -> Iterator[tuple[str, str]]:
        """Yield names and values, as texts."""
        states = count_states(self._progress)
        total = sum(states.values())
        if total == 1:
            yield "state", self.state
        else:
            counts = [f"{states.get('completed', 0)} of {total} completed"]
            yield (
                "Sessions",
                ", ".join(counts + [f"{n} {state}" for state, n in states.items() if state != "completed"]),
            )

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {text}" for name, text in [*self._figures()][:SHORT])
        return visible(f"{type(self).__name__} {self.path}: {figures}")

    __repr__ = __str__

    def _repr_png_(self) -> bytes | None:
        is_there = self.picture.is_file() and not self.picture.is_symlink()
        return self.picture.read_bytes() if is_there else None

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._figures()
        )
        title = html.escape(f"{type(self).__name__} {self.path}")
        png = self._repr_png_()
        image = (
            f"<img style='max-width: 100%' src='data:image/png;base64,{base64.b64encode(png).decode()}'>" if png else ""
        )
        return f"<table><caption>{title}</caption>{rows}</table>{image}"


class Session(Result):
    """One training run: one algorithm, one environment, one set of hyperparameters, one seed."""

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Its resolved spec, as plain data."""
        from lab.analysis.session import read_spec

        return read_spec(RunDir(self.path))

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.spec["seed"])

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics by name, None where one is undefined: see docs/reference/run-directory.md."""
        from lab.analysis.session import read_session

        return read_session(RunDir(self.path), 0).metrics

    @property
    def mean_return(self) -> float | None:
        """The mean return of the last 100 training episodes; None while there is none."""
        return self.metrics.get("return")

    @property
    def error(self) -> str | None:
        """Why it failed, with the traceback; None if it did not."""
        return RunDir(self.path).read_status()["error"]

    @property
    def picture(self) -> Path:
        """The picture of its curves, once it has ended."""
        return RunDir(self.path).plot

    def _figures(self) -> Iterator[tuple[str, str]]:
        yield from super()._figures()
        metrics = self.metrics
        for name in SHOWN:
            if metrics.get(name) is not None:
                yield name.replace("_", " "), format_number(metrics[name], name)


class Trial(Result):
    """Sessions that differ in nothing but the seed."""

    @property
    def seeds(self) -> list[int]:
        """The seeds of its Sessions."""
        return [int(one.seed) for trial in self._progress for one in trial.sessions if one.seed is not None]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the sweep set, by key; empty for a Trial of its own."""
        return dict(self._progress[0].hyperparameters)

    @property
    def metrics(self) -> dict[str, Any]:
        """Statistics of each metric over its completed Sessions, by name: mean, iqm and others with their intervals."""
        from lab.analysis.trial import read_trial

        return read_trial(TrialDir(self.path)).summaries

    @property
    def mean_return(self) -> float | None:
        """The mean over its completed Sessions of the mean return of the last 100 training episodes."""
        summary = self.metrics.get("return")
        return summary["mean"]["value"] if summary else None

    @property
    def picture(self) -> Path:
        """The picture of its curves, once it has ended."""
        return TrialDir(self.path).plot

    def _figures(self) -> Iterator[tuple[str, str]]:
        yield from super()._figures()
        for name, summary in self.metrics.items():
            if name in SHOWN and summary["mean"]["value"] is not None:
                yield f"mean {name.replace('_', ' ')}", format_estimate(summary["mean"], name)


class Experiment(Result):
    """Trials over a set of hyperparameters, ranked."""

    @property
    def trials(self) -> list[Trial]:
        """Its Trials, by number."""
        return [Trial(trial.path) for trial in SweepDir(self.path).trials()]

    @property
    def best(self) -> Trial | None:
        """The first of the ranking; None if no Trial is ranked, with several objectives or several environments."""
        from lab.analysis.experiment import read_experiment

        best = read_experiment(SweepDir(self.path)).best
        return Trial(best.trial.directory.path) if best else None

    @property
    def table(self) -> pd.DataFrame:
        """A row for each Trial, with its rank, hyperparameters and metrics, as in trials.csv."""
        from lab.analysis.experiment import read_experiment, trials_table

        return trials_table(read_experiment(SweepDir(self.path)))

    @property
    def metrics(self) -> dict[str, Any]:
        """Statistics of each metric of the best Trial; empty if there is no single best."""
        return self.best.metrics if self.best else {}

    @property
    def mean_return(self) -> float | None:
        """The mean return of the best Trial; None if there is no single best."""
        return self.best.mean_return if self.best else None

    @property
    def picture(self) -> Path:
        """The picture of its ranking, once it has ended."""
        return SweepDir(self.path).plot

    def _figures(self) -> Iterator[tuple[str, str]]:
        yield from super()._figures()
        best = self.best
        if best:
            settings = ", ".join(f"{key}={value}" for key, value in best.hyperparameters.items())
            yield "best Trial", f"{best.path.name} {settings}".strip()
            yield "mean return", format_estimate(best.metrics["return"]["mean"])


LEVELS: dict[str, type[Session] | type[Trial] | type[Experiment]] = {
    "session": Session,
    "trial": Trial,
    "experiment": Experiment,
}


def open_run(path: str | os.PathLike[str]) -> Session | Trial | Experiment:
    """Return the run in a directory.

    Raises:
        LabError: it is not a run directory.
    """
    folder = Path(path)
    return LEVELS[find_level(folder)](folder)
