"""Optimizers over a buffer [S, P], in which every hyperparameter is a vector over the session axis.

torch.optim takes one learning rate for a tensor and steps all of it; Sessions in a stack have their own, and one that
has stopped (a KL limit, a failure) must keep its parameters and its moments while the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lab.common.imports import torch
from lab.errors import require, require_one_of

NAMES = ("adam", "rmsprop", "sgd")


@dataclass
class OptimizerSpec:
    """Which optimizer, and its own constants."""

    name: str  # one of NAMES, or the path of a class, as torch.optim.RAdam
    beta1: float  # decay of the mean of gradients (adam), momentum (rmsprop, sgd)
    beta2: float  # decay of the mean of squared gradients (adam, rmsprop)
    eps: float  # added to the root of that mean (adam, rmsprop)
    kwargs: dict[str, Any] = field(default_factory=dict)  # of a class: arguments for its constructor

    @property
    def is_path(self) -> bool:
        """Whether the name is the path of a class of torch's."""
        return "." in self.name

    def check(self, key: str) -> None:
        """Raise LabError for a value that is not allowed; `key` is the name of the group."""
        if self.is_path:
            from lab.net import torch_optimizer as torch_optimizer

            torch_optimizer.check(key, self.name, self.kwargs)
            return
        require_one_of(f"{key}.name", self.name, NAMES)
        require(0 <= self.beta1 < 1, f"{key}.beta1", self.beta1, "at least 0 and below 1")
        require(0 <= self.beta2 < 1, f"{key}.beta2", self.beta2, "at least 0 and below 1")
        require(self.eps > 0, f"{key}.eps", self.eps, "above 0")
        require(not self.kwargs, f"{key}.kwargs", self.kwargs, f"{{}} with {key}.name={self.name}")


class Optimizer:
    """Steps parameters [S, P] by gradients [S, P], each Session at its own rate.

    - adam: Kingma & Ba 2015, algorithm 1.
    - rmsprop: Hinton 2012, lecture 6.5, with momentum as in torch.optim.RMSprop.
    - sgd: with momentum as in torch.optim.SGD.
    """

    def __init__(self, spec: OptimizerSpec, values: torch.Tensor) -> None:
        """Make the optimizer of the buffer `values`; the numbers of `spec` are vectors [S, 1] here."""
        self.name, self.values = spec.name, values
        self._step = {"adam": self._adam, "rmsprop": self._rmsprop, "sgd": self._sgd}[spec.name]
        column = torch.zeros(len(values), 1, device=values.device)
        self.beta1, self.beta2, self.eps = column + spec.beta1, column + spec.beta2, column + spec.eps
        self.rate1, self.rate2 = 1 - (column + spec.beta1), 1 - (column + spec.beta2)
        self.state: dict[str, torch.Tensor] = {
            "mean": torch.zeros_like(values),
            "square": torch.zeros_like(values),
            "count": column[:, 0].clone(),
        }

    @cached_property
    def _sessions(self) -> list[tuple[Any, ...]]:
        """Parameters, moments, count and constants of each Session: views of what is kept for the stack."""
        columns = (column.flatten().tolist() for column in (self.beta1, self.beta2, self.eps))
        constants = [dict(zip(("beta1", "beta2", "eps"), row, strict=True)) for row in zip(*columns, strict=True)]
        kept = (self.values, self.state["mean"], self.state["square"], self.state["count"])
        return list(zip(*(tensor.unbind(0) for tensor in kept), constants, strict=True))

    def step(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        """Take one step.

        Args:
            gradients: [S, P].
            lr: learning rates [S, 1].
            mask: [S, 1], 1 for a Session that takes the step, 0 for one that stays exactly as it is.
        """
        self._step(gradients, lr, mask)

    def _adam(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        # A Session at a time, by torch's own kernel, which goes through memory once.
        rates = lr.flatten().tolist()
        for s, stepping in enumerate(mask.flatten().tolist()):
            if stepping:
                values, mean, square, count, constants = self._sessions[s]
                count += 1
                torch._fused_adam_(
                    [values], [gradients[s]], [mean], [square], [], [count], lr=rates[s], weight_decay=0.0,
                    amsgrad=False, maximize=False, **constants,
                )  # fmt: skip

    def _rmsprop(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        square = self.state["square"]
        square.lerp_(gradients * gradients, self.rate2 * mask)
        self._momentum(gradients / square.sqrt().add_(self.eps), lr, mask)

    def _sgd(self, gradients: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        self._momentum(gradients, lr, mask)

    def _momentum(self, direction: torch.Tensor, lr: torch.Tensor, mask: torch.Tensor) -> None:
        mean = self.state["mean"]
        mean.copy_(torch.where(mask > 0, mean * (1 - self.rate1) + direction, mean))
        self.values.sub_(mean * (lr * mask))

    def session(self, index: int) -> dict[str, Any]:
        """Return copies of one Session's state, for a checkpoint."""
        return {name: value[index].cpu().clone() for name, value in self.state.items()}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's state to what `session` returned."""
        for name, value in self.state.items():
            value[index].copy_(state[name])
