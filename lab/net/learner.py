"""Networks that are optimized together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lab.net import checks
from lab.net.network import Parameters
from lab.net.optimizer import Optimizer, OptimizerSpec, TorchOptimizers
from lab.net.schedule import TorchSchedule, scheduled


class Learner:
    """Networks of a stack whose parameters one optimizer steps together.

    Attributes:
        parameters: of all of them.
        optimizer: of these parameters.
        lr: learning rate, [S, 1], set by `update_lr`.
        problems: problems found by the checks of every step (mode=dev), by index of the Session; None without checks.
    """

    def __init__(self, module: nn.Module, spec: OptimizerSpec, device: torch.device) -> None:
        """Take over the parameters of a module, each [S, ...], and move it to the device."""
        self.spec, self.parameters = spec, Parameters(module.to(device))
        self.lr: torch.Tensor = self.parameters.values.new_zeros(len(self.parameters.values), 1) + spec.lr
        self.max_grad_norm = None if spec.max_grad_norm is None else torch.zeros_like(self.lr) + spec.max_grad_norm
        path, kwargs = spec.lr_schedule, spec.lr_schedule_kwargs
        self.schedule = TorchSchedule("algo.optimizer.lr_schedule", path, kwargs, self.lr) if "." in path else None
        kind = TorchOptimizers if spec.is_path else Optimizer
        self.optimizer: Optimizer | TorchOptimizers = kind(spec, self.parameters.values)
        self.problems: dict[int, str] | None = None

    def update_lr(self, fraction_done: float) -> None:
        """Set the learning rate for a learning call, at a fraction of the Session's frames.

        Call it once in each learning call, as schedules of torch count these.
        """
        if self.schedule:
            self.lr.copy_(self.schedule.next())
        elif self.spec.lr_schedule != "constant":
            self.lr.copy_(scheduled(self.spec.lr_schedule, self.spec.lr, self.spec.lr_final, fraction_done))

    def step(self, losses: torch.Tensor, sample_weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take one optimizer step on each Session's weighted sum of losses.

        Args:
            losses: of every sample, [S, B].
            sample_weights: weight of each sample in its Session's loss, [S, B].
            mask: 1 for Sessions that take this step, 0 for others, which keep parameters and moments, [S, 1].

        Returns:
            The norm of each Session's gradient before clipping, [S].
        """
        self.parameters.backward(losses, sample_weights)
        gradients = self.parameters.gradients
        gradients.view(torch.int32).bitwise_and_(-mask.int())  # 0 outside the mask, even in place of NaN
        norm = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        if self.max_grad_norm is not None:
            gradients.mul_(self.max_grad_norm / torch.maximum(norm, self.max_grad_norm))
        before = self.parameters.values.clone() if self.problems is not None else None
        self.optimizer.step(gradients, self.lr, mask)
        if self.problems is not None and before is not None:
            self.problems |= checks.step_problems(self.parameters, before, mask)
        return norm[:, 0]

    def session(self, index: int) -> dict[str, Any]:
        """Return a copy of the state of one Session's optimizer and schedule, for a checkpoint."""
        schedule = self.schedule.session(index) if self.schedule else None
        return {"optimizer": self.optimizer.session(index), "schedule": schedule}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's optimizer and schedule to what `session` returned."""
        self.optimizer.restore(index, state["optimizer"])
        if self.schedule:
            self.schedule.restore(index, state["schedule"])
