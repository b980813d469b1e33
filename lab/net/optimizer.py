"""Optimizers over a buffer [S, P] in which every hyperparameter is a vector over the session axis.

torch.optim takes one learning rate for a tensor and steps all of it. Sessions in a stack have their own, and a Session
outside the mask (at its KL limit, or failed) keeps its parameters and moments while the others go on.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from lab.common.imports import import_class, torch
from lab.common.validation import Scalar
from lab.errors import LabError, require, require_one_of
from lab.net.schedule import TorchSchedule, check_schedule

NAMES = ("adam", "rmsprop", "sgd")
TINY = 1e-30  # in place of 0 before the first step, as a Session outside the mask is divided by it too


@dataclass
class OptimizerSpec:
    """Which optimizer a learner uses, its learning rate and its constants; conf/algo/*.yaml explain each key."""

    name: str
    lr: Annotated[Scalar, Gt(0)]
    lr_schedule: str
    lr_final: Annotated[Scalar, Ge(0)]
    max_grad_norm: Annotated[Scalar, Gt(0)] | None
    beta1: Annotated[Scalar, Ge(0), Lt(1)]
    beta2: Annotated[Scalar, Ge(0), Lt(1)]
    eps: Annotated[Scalar, Gt(0)]
    lr_schedule_kwargs: dict[str, Any] = field(default_factory=dict)
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_path(self) -> bool:
        """Whether the name is the path of a class of torch."""
        return "." in self.name

    def check(self, key: str) -> None:
        """Raise LabError for values that do not fit together; `key` is the name of the group."""
        if "." in self.lr_schedule:
            TorchSchedule.check(f"{key}.lr_schedule", self.lr_schedule, self.lr_schedule_kwargs)
        else:
            check_schedule(f"{key}.lr", f"{key}.lr", self.lr, self.lr_schedule, self.lr_final)
            schedule = f"{key}.lr_schedule={self.lr_schedule}"
            require(
                not self.lr_schedule_kwargs,
                f"{key}.lr_schedule_kwargs",
                self.lr_schedule_kwargs,
                f"{{}} with {schedule}",
            )
        if self.is_path:
            TorchOptimizers.check(key, self.name, self.kwargs)
            return
        require_one_of(f"{key}.name", self.name, NAMES)
        require(not self.kwargs, f"{key}.kwargs", self.kwargs, f"{{}} with {key}.name={self.name}")


class Optimizer:
    """Steps parameters [S, P] by gradients [S, P], each Session at its own learning rate.

    - adam: Kingma & Ba 2015, algorithm 1, as computed in section 2's last paragraph.
    - rmsprop: Hinton 2012, lecture 6.5, with momentum as in torch.optim.RMSprop.
    - sgd: with momentum as in torch.optim.SGD.
    """

    def __init__(self, spec: OptimizerSpec, values: torch.Tensor) -> None:
        """Make the optimizer of the buffer `values`; the numbers of `spec` are vectors [S, 1] here."""
        self.values = values
        self._step = {"adam": self._adam, "rmsprop": self._rmsprop, "sgd": self._sgd}[spec.name]
        zero = values.new_zeros(len(values), 1)
        self.beta1, self.beta2, self.eps = zero + spec.beta1, zero + spec.beta2, zero + spec.eps
        self.rate1, self.rate2, self._one = 1 - self.beta1, 1 - self.beta2, torch.ones_like(zero)
        self._scratch = torch.empty_like(values)
        self.state: dict[str, torch.Tensor] = {"mean": torch.zeros_like(values)}
        if spec.name != "sgd":
            self.state["square"] = torch.zeros_like(values)
        if spec.name == "adam":  # 1 - beta1^t and 1 - beta2^t, by which the means are corrected
            self.state |= {"correction1": zero + TINY, "correction2": zero + TINY}

    def step(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        """Take one step.

        Args:
            gradients: [S, P], finite where the mask is 0.
            lr: learning rates [S, 1].
            mask: 1 for a Session that takes the step, 0 for one that stays exactly as it is, [S, 1].
        """
        with torch.no_grad():
            self._step(gradients, lr, mask)

    def _adam(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        # Operations are few and in place: in small networks their number is what a step costs.
        mean, square, correction1, correction2 = self.state.values()
        rate1, rate2 = self.rate1 * mask, self.rate2 * mask
        correction1.lerp_(self._one, rate1)
        root = correction2.lerp_(self._one, rate2).sqrt()
        mean.lerp_(gradients, rate1)
        square.lerp_(torch.mul(gradients, gradients, out=self._scratch), rate2)
        update = torch.sqrt(square, out=self._scratch).add_(self.eps * root)
        torch.div(mean, update, out=update)
        self.values.addcmul_(update, (lr * mask).mul_(root).div_(correction1), value=-1)

    def _rmsprop(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        square = self.state["square"]
        square.lerp_(torch.mul(gradients, gradients, out=self._scratch), mask - self.beta2 * mask)
        root = torch.sqrt(square, out=self._scratch).add_(self.eps)
        self._sgd(torch.div(gradients, root, out=root), lr, mask)

    def _sgd(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        mean = self.state["mean"]
        mean.mul_(mask * self.beta1 + (1 - mask)).addcmul_(gradients, mask)
        self.values.addcmul_(mean, lr * mask, value=-1)

    def session(self, index: int) -> dict[str, Any]:
        """Return copies of one Session's state, for a checkpoint."""
        return {name: value[index].cpu().clone() for name, value in self.state.items()}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's state to what `session` returned."""
        for name, value in self.state.items():
            value[index].copy_(state[name])


class TorchOptimizers:
    """Steps parameters [S, P] by gradients [S, P], each Session's row by its own optimizer of torch.optim.

    The optimizer sees a Session's parameters as one flat tensor. This is equivalent for element-wise optimizers, not
    for layer-wise ones such as LARS.
    """

    def __init__(self, spec: OptimizerSpec, values: torch.Tensor) -> None:
        cls = import_class("algo.optimizer.name", spec.name, torch.optim.Optimizer)
        self.rows = [torch.nn.Parameter(row) for row in values.unbind(0)]
        self.optimizers: list[torch.optim.Optimizer] = [cls([row], lr=0.0, **spec.kwargs) for row in self.rows]

    @staticmethod
    def check(key: str, path: str, kwargs: dict[str, Any]) -> None:
        """Raise LabError unless the optimizer can be made and takes a step; `key` is the name of the group."""
        cls = import_class(f"{key}.name", path, torch.optim.Optimizer)
        if "lr" in kwargs:
            raise LabError(f"{key}.kwargs.lr is not allowed: {key}.lr is the learning rate of every optimizer.")
        try:
            row = torch.nn.Parameter(torch.zeros(32))
            row.grad = torch.ones(32)
            cls([row], lr=1e-3, **kwargs).step()
        except Exception as error:
            raise LabError(
                f"{key}.name={path} cannot be used with {key}.kwargs={kwargs}: {type(error).__name__}: {error}"
            ) from error

    def step(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        """Take one step: see `Optimizer.step`. It reads lr and mask on the host, as torch's own optimizers do."""
        read = torch.cat([lr + torch.zeros_like(mask), mask], 1).tolist()
        for s, (rate, steps) in enumerate(read):
            if steps:
                self.rows[s].grad = gradients[s]
                self.optimizers[s].param_groups[0]["lr"] = rate
                self.optimizers[s].step()

    def session(self, index: int) -> dict[str, Any]:
        """Return a copy of one Session's state, for a checkpoint."""
        return copy.deepcopy(self.optimizers[index].state_dict())

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's state to what `session` returned."""
        self.optimizers[index].load_state_dict(state)
