"""Schedules of hyperparameters over a Session's frames, and any learning rate schedule of torch."""

from __future__ import annotations

import copy
import math
from typing import Any

from lab.common.imports import import_class, torch
from lab.common.transfer import upload
from lab.common.validation import Scalar
from lab.errors import LabError, require, require_one_of

NAMES = ("constant", "linear", "exponential", "cosine")


def scheduled(name: str, start: Any, final: Any, fraction_done: float) -> Any:
    """Return the value of a hyperparameter part of the way through a Session.

    Args:
        name: one of NAMES. An exponential schedule needs a start and a final value above 0.
        start: value at the beginning, a number or a vector [S, 1].
        final: value at the end.
        fraction_done: fraction of the Session's frames that are done, 0 to 1.
    """
    if name == "linear":
        return start + (final - start) * fraction_done
    if name == "cosine":
        return final + (start - final) * (0.5 * (1 + math.cos(math.pi * fraction_done)))
    if name != "exponential":
        return start
    if isinstance(start, torch.Tensor):  # pow() rounds differently at the end of a long stack than inside it (law 1)
        from lab.net.layers import in_whole_lanes

        power = in_whole_lanes(lambda x: x.pow(fraction_done))
        return in_whole_lanes(lambda x: x.pow(1 - fraction_done))(start) * power(final)
    return start ** (1 - fraction_done) * final**fraction_done


def check_schedule(key: str, start_key: str, start: Scalar, schedule: str, final: Scalar) -> None:
    """Raise LabError for a schedule of a hyperparameter, or for values of it, that are not allowed.

    Args:
        key: prefix of the keys of the schedule and of its final value, as algo.entropy.
        start_key: the key of its start.
        start: value at the beginning.
        schedule: one of NAMES.
        final: value at the end.
    """
    require_one_of(f"{key}_schedule", schedule, NAMES)
    least = f"above 0 with {key}_schedule=exponential" if schedule == "exponential" else "0 or more"
    for name, value in ((start_key, float(start)), (f"{key}_final", float(final))):
        require(value > 0 or (value == 0 and schedule != "exponential"), name, value, least)


class TorchSchedule:
    """Learning rates by a scheduler of torch for each Session, stepped once in each learning call.

    Only the scheduler's learning rate is used.
    """

    def __init__(self, key: str, path: str, kwargs: dict[str, Any], start: torch.Tensor) -> None:
        """Make the schedulers of a stack that start at learning rates [S, 1]; `key` names the path in errors."""
        cls = import_class(key, path, torch.optim.lr_scheduler.LRScheduler)
        self.key, self.path, self.start = key, path, start
        self.optimizers = [torch.optim.SGD([torch.zeros(1)], lr=lr) for lr in start.flatten().tolist()]
        self.schedulers: list[Any] = [cls(optimizer, **kwargs) for optimizer in self.optimizers]

    @classmethod
    def check(cls, key: str, path: str, kwargs: dict[str, Any]) -> None:
        """Raise LabError unless the schedule can be made and takes a step."""
        try:
            cls(key, path, kwargs, torch.full((1, 1), 1e-3)).next()
        except LabError:
            raise
        except Exception as error:
            raise LabError(
                f"{key}={path} cannot be used with {key}_kwargs={kwargs}: {type(error).__name__}: {error}"
            ) from error

    def next(self) -> torch.Tensor:
        """Return the learning rates of a learning call, [S, 1], and step to those of the following one.

        Raises:
            LabError: the schedule is over.
        """
        rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()  # schedulers warn without it
            try:
                scheduler.step()
            except ValueError as error:
                raise LabError(f"{self.key}={self.path} was over before the Session was: {error}") from error
        return upload(torch.tensor(rates), self.start.device).view_as(self.start)

    def session(self, index: int) -> dict[str, Any]:
        """Return a copy of the state of one Session's schedule, for a checkpoint."""
        group = {key: value for key, value in self.optimizers[index].param_groups[0].items() if key != "params"}
        return copy.deepcopy({"scheduler": self.schedulers[index].state_dict(), "group": group})

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's schedule to what `session` returned."""
        self.schedulers[index].load_state_dict(state["scheduler"])
        self.optimizers[index].param_groups[0].update(state["group"])
