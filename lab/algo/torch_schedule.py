"""Any schedule of torch.optim.lr_scheduler, for each Session of a stack."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from lab.common.imports import import_class
from lab.errors import LabError

KEY = "algo.lr_schedule"


def check(path: str, kwargs: dict[str, Any]) -> None:
    """Raise LabError unless the schedule can be made and takes a step."""
    cls = import_class(KEY, path, torch.optim.lr_scheduler.LRScheduler)
    try:
        _step(*_make(cls, kwargs, 1e-3))
    except Exception as error:
        raise LabError(
            f"{KEY}={path} cannot be used with {KEY}_kwargs={kwargs}: {type(error).__name__}: {error}"
        ) from error


class TorchSchedule:
    """Learning rates by a scheduler of torch for each Session, which takes a step in each learning call.

    Of what a scheduler changes the learning rate alone is taken.
    """

    def __init__(self, path: str, kwargs: dict[str, Any], start: Tensor) -> None:
        """Make the schedulers of a stack that begin at learning rates [S, 1]."""
        cls = import_class(KEY, path, torch.optim.lr_scheduler.LRScheduler)
        self.path, self.start = path, start
        self.pairs = [_make(cls, kwargs, rate) for rate in start.flatten().tolist()]

    def next(self) -> Tensor:
        """Return the learning rates of a learning call, [S, 1], and step on to those of the following one.

        Raises:
            LabError: the schedule is over.
        """
        rates = [optimizer.param_groups[0]["lr"] for optimizer, _ in self.pairs]
        for optimizer, scheduler in self.pairs:
            try:
                _step(optimizer, scheduler)
            except ValueError as error:
                raise LabError(f"{KEY}={self.path} was over before the Session was: {error}") from error
        return self.start.new_tensor(rates).view_as(self.start)

    def session(self, index: int) -> dict[str, Any]:
        """Return a copy of where one Session's schedule is, for a checkpoint."""
        optimizer, scheduler = self.pairs[index]
        group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        return copy.deepcopy({"scheduler": scheduler.state_dict(), "group": group})

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's schedule to where it was when `session` returned `state`."""
        optimizer, scheduler = self.pairs[index]
        scheduler.load_state_dict(state["scheduler"])
        optimizer.param_groups[0].update(state["group"])


def _make(cls: Any, kwargs: dict[str, Any], lr: float) -> tuple[torch.optim.Optimizer, Any]:
    """Return a scheduler, with an optimizer of nothing for it to change the learning rate of."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    return optimizer, cls(optimizer, **kwargs)


def _step(optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    optimizer.step()  # as schedulers ask for
    scheduler.step()
