"""Any optimizer of torch.optim, one for each Session of a stack."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lab.common.imports import import_class
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.net.optimizer import OptimizerSpec


def check(key: str, path: str, kwargs: dict[str, Any]) -> None:
    """Raise LabError unless the optimizer can be made and takes a step; `key` is the name of the group."""
    cls = import_class(f"{key}.name", path, torch.optim.Optimizer)
    if "lr" in kwargs:
        raise LabError(f"{key}.kwargs.lr is not allowed: algo.lr is the learning rate of every optimizer.")
    try:
        values = torch.zeros(2, 32)
        optimizer: Any = cls([nn.Parameter(values[0])], lr=1e-3, **kwargs)
        optimizer.param_groups[0]["params"][0].grad = torch.ones(32)
        optimizer.step()
    except Exception as error:
        raise LabError(
            f"{key}.name={path} cannot be used with {key}.kwargs={kwargs}: {type(error).__name__}: {error}"
        ) from error


class TorchOptimizers:
    """Steps parameters [S, P] by gradients [S, P], each Session's row by an optimizer of its own.

    To an optimizer all parameters of a Session are one tensor, as makes no difference to those that treat every number
    for itself, as most do.
    """

    def __init__(self, spec: OptimizerSpec, values: Tensor) -> None:
        cls = import_class("algo.optimizer.name", spec.name, torch.optim.Optimizer)
        self.rows = [nn.Parameter(row) for row in values.unbind(0)]
        self.optimizers: list[torch.optim.Optimizer] = [cls([row], lr=0.0, **spec.kwargs) for row in self.rows]

    def step(self, gradients: Tensor, lr: Tensor, mask: Tensor) -> None:
        """Take one step: see `Optimizer.step`."""
        rates = (lr + torch.zeros_like(mask)).flatten().tolist()
        for s, stepping in enumerate(mask.flatten().tolist()):
            if stepping:
                self.rows[s].grad = gradients[s]
                self.optimizers[s].param_groups[0]["lr"] = rates[s]
                self.optimizers[s].step()

    def session(self, index: int) -> dict[str, Any]:
        """Return a copy of one Session's state, for a checkpoint."""
        return copy.deepcopy(self.optimizers[index].state_dict())

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's state to what `session` returned."""
        self.optimizers[index].load_state_dict(state)
