"""Optimisers over a buffer [S, P], in which every hyperparameter is a vector over the session axis.

torch.optim takes one learning rate for a tensor and steps all of it; Sessions in a stack have their own, and one that
has stopped (a KL limit, a failure) must keep its parameters and its moments while the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.errors import require, require_one_of
from lab.lazy import torch

NAMES = ("adam", "rmsprop", "sgd")
TINY = 1e-30  # below any correction of a Session that has taken a step


@dataclass
class OptimiserSpec:
    """Which optimiser, and its own constants."""

    name: str  # one of NAMES
    beta1: float  # decay of the mean of gradients (adam), momentum (rmsprop, sgd)
    beta2: float  # decay of the mean of squared gradients (adam, rmsprop)
    eps: float  # added to the root of that mean (adam, rmsprop)

    def check(self, key: str) -> None:
        """Raise LabError for a value that is not allowed; `key` is the name of the group."""
        require_one_of(f"{key}.name", self.name, NAMES)
        require(0 <= self.beta1 < 1, f"{key}.beta1", self.beta1, "at least 0 and below 1")
        require(0 <= self.beta2 < 1, f"{key}.beta2", self.beta2, "at least 0 and below 1")
        require(self.eps > 0, f"{key}.eps", self.eps, "above 0")


class Optimiser:
    """Steps parameters [S, P] by gradients [S, P], each Session at its own rate.

    - adam: Kingma & Ba 2015, algorithm 1.
    - rmsprop: Hinton 2012, lecture 6.5, with momentum as in torch.optim.RMSprop.
    - sgd: with momentum as in torch.optim.SGD.
    """

    def __init__(self, spec: OptimiserSpec, values: torch.Tensor) -> None:
        """Make the optimiser of the buffer `values`; the numbers of `spec` are vectors [S, 1] here."""
        self.name, self.values, self.eps = spec.name, values, spec.eps
        self._step = {"adam": self._adam, "rmsprop": self._rmsprop, "sgd": self._sgd}[spec.name]
        column = torch.zeros(len(values), 1, device=values.device)
        self.rate1, self.rate2 = 1 - (column + spec.beta1), 1 - (column + spec.beta2)
        self.beta1, self.beta2 = (column + spec.beta1).double(), (column + spec.beta2).double()
        self.state: dict[str, torch.Tensor] = {
            "mean": torch.zeros_like(values),
            "square": torch.zeros_like(values),
            "power1": torch.ones_like(self.beta1),
            "power2": torch.ones_like(self.beta2),
        }

    def step(self, gradients: torch.Tensor, lr: torch.Tensor, active: torch.Tensor) -> None:
        """Take one step.

        Args:
            gradients: [S, P].
            lr: learning rates [S, 1].
            active: [S, 1], 1 for a Session that takes the step, 0 for one that stays exactly as it is.
        """
        self._step(gradients, lr * active, active)

    def _adam(self, gradients: torch.Tensor, lr: torch.Tensor, active: torch.Tensor) -> None:
        mean, square = self.state["mean"], self.state["square"]
        mean.lerp_(gradients, self.rate1 * active)
        square.lerp_(gradients * gradients, self.rate2 * active)
        # Running products, because pow() rounds differently at the end of a stack than inside it (law 1).
        stepping = active > 0
        self.state["power1"].mul_(torch.where(stepping, self.beta1, 1.0))
        self.state["power2"].mul_(torch.where(stepping, self.beta2, 1.0))
        correction1 = (1 - self.state["power1"]).clamp(min=TINY).float()
        correction2 = (1 - self.state["power2"]).clamp(min=TINY).float()
        self.values.sub_(mean * (lr / correction1) / (square / correction2).sqrt_().add_(self.eps))

    def _rmsprop(self, gradients: torch.Tensor, lr: torch.Tensor, active: torch.Tensor) -> None:
        square = self.state["square"]
        square.lerp_(gradients * gradients, self.rate2 * active)
        self._momentum(gradients / square.sqrt().add_(self.eps), lr, active)

    def _sgd(self, gradients: torch.Tensor, lr: torch.Tensor, active: torch.Tensor) -> None:
        self._momentum(gradients, lr, active)

    def _momentum(self, direction: torch.Tensor, lr: torch.Tensor, active: torch.Tensor) -> None:
        mean = self.state["mean"]
        mean.copy_(torch.where(active > 0, mean * (1 - self.rate1) + direction, mean))
        self.values.sub_(mean * lr)

    def session(self, index: int) -> dict[str, Any]:
        """Return copies of one Session's state, for a checkpoint."""
        return {name: value[index].cpu().clone() for name, value in self.state.items()}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's state to what `session` returned."""
        for name, value in self.state.items():
            value[index].copy_(state[name])
