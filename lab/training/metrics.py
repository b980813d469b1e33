"""Episodes and metrics of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lab.common.imports import torch

PROGRESS = ("frame", "optimizer_steps", "episodes", "return", "length")  # columns of metrics.csv for every algorithm
EVALUATION = ("eval_return", "eval_length")  # columns that are filled where there was an evaluation


def metrics_columns(env_metrics: Iterable[str], algorithm_metrics: Iterable[str]) -> list[str]:
    """Return the columns of metrics.csv."""
    return [*PROGRESS, *env_metrics, *algorithm_metrics, *evaluation_columns(env_metrics)]


def evaluation_columns(env_metrics: Iterable[str]) -> list[str]:
    """Return the columns that are filled where there was an evaluation: the rows of what Evaluation returns."""
    return [*EVALUATION, *(f"eval_{name}" for name in env_metrics)]


Sums = list[tuple[tuple[str, ...], "torch.Tensor"]]


class Episode(NamedTuple):
    """A finished episode."""

    frame: int  # of its Session, at its end
    episode_return: float  # sum of the rewards as the environment gave them
    length: int  # steps
    metrics: tuple[float, ...] = ()  # those of env.metrics


class Averages:
    """Averages of metrics [S] over the calls of `learn` in a log interval that took an optimizer step."""

    def __init__(self) -> None:
        # By the names of metrics that are returned together, [M + 1, S]: their sums, and the number of calls.
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}

    def state(self, index: int) -> Sums:
        """Return one Session's sums and counts for a checkpoint."""
        return [(names, sums[:, index].cpu().clone()) for names, sums in self._sums.items()]

    def restore(self, states: list[Sums], device: torch.device) -> None:
        """Continue from what `state` returned for each Session of a stack."""
        for parts in zip(*states, strict=True):
            self._sums[parts[0][0]] = torch.stack([sums for _, sums in parts], 1).to(device)

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Add the metrics of one call; its metric `steps` is above 0 for the Sessions that took a step."""
        names = tuple(name for name in metrics if name != "steps")
        if not names:
            return
        rows = torch.stack([*(metrics[name] for name in names), torch.ones_like(metrics["steps"])])
        rows = rows.where(metrics["steps"] > 0, 0.0)
        self._sums[names] = self._sums[names] + rows if names in self._sums else rows

    def pop(self) -> dict[str, list[float | None]]:
        """Return each metric's average by Session (None for a Session without a step), and start again."""
        sums: dict[str, torch.Tensor] = {}
        counts: dict[str, torch.Tensor] = {}
        for names, rows in self._sums.items():
            for name, row in zip(names, rows[:-1].unbind(0), strict=True):
                sums[name], counts[name] = sums.get(name, 0.0) + row, counts.get(name, 0.0) + rows[-1]
        self._sums = {}
        if not sums:
            return {}
        totals, numbers = torch.stack([torch.stack([*sums.values()]), torch.stack([*counts.values()])]).tolist()
        return {
            name: [value / count if count else None for value, count in zip(total, number, strict=True)]
            for name, total, number in zip(sums, totals, numbers, strict=True)
        }
