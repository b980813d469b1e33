"""Schedules of hyperparameters over a Session's frames."""

import math
from typing import Any

from lab.common.imports import torch
from lab.errors import require, require_one_of

NAMES = ("constant", "linear", "exponential", "cosine")


def scheduled(name: str, start: Any, final: Any, progress: float) -> Any:
    """Return the value of a hyperparameter part of the way through a Session.

    Args:
        name: one of NAMES. An exponential schedule needs a start and a final value above 0.
        start: value at the beginning, a number or a vector over the session axis.
        final: value at the end.
        progress: share of the Session's frames that are done, 0 to 1.
    """
    if name == "linear":
        return start + (final - start) * progress
    if name == "cosine":
        return final + (start - final) * (0.5 * (1 + math.cos(math.pi * progress)))
    if name == "exponential":
        if not isinstance(start, torch.Tensor):
            return start ** (1 - progress) * final**progress
        # One number after the other: pow() rounds differently at the end of a long stack than inside it (law 1).
        pairs = zip(start.flatten().tolist(), final.flatten().tolist(), strict=True)
        return start.new_tensor([first ** (1 - progress) * last**progress for first, last in pairs]).view(start.shape)
    return start


def check_schedule(key: str, start_key: str, start: float, schedule: str, final: float) -> None:
    """Raise LabError for a schedule of a hyperparameter, or for values of it, that are not allowed.

    Args:
        key: what the keys of the schedule and of its final value begin with, as algo.lr.
        start_key: the key of its start.
        start: value at the beginning.
        schedule: one of NAMES.
        final: value at the end.
    """
    require_one_of(f"{key}_schedule", schedule, NAMES)
    least = f"above 0 with {key}_schedule=exponential" if schedule == "exponential" else "0 or more"
    for name, value in ((start_key, start), (f"{key}_final", final)):
        require(value > 0 or (value == 0 and schedule != "exponential"), name, value, least)


def check_lr(lr: float, schedule: str, final: float, kwargs: dict[str, Any] | None = None) -> None:
    """Raise LabError for a learning rate, or a schedule of one, that is not allowed; torch's have arguments."""
    require(lr > 0, "algo.lr", lr, "above 0")
    if "." in schedule:
        from lab.algo import torch_schedule

        torch_schedule.check(schedule, kwargs or {})
        return
    check_schedule("algo.lr", "algo.lr", lr, schedule, final)
    require(not kwargs, "algo.lr_schedule_kwargs", kwargs, f"{{}} with algo.lr_schedule={schedule}")
