"""Networks that are optimized together."""

from __future__ import annotations

import torch
from torch import nn

from lab.net import checks
from lab.net.network import Parameters
from lab.net.optimizer import Optimizer, OptimizerSpec, TorchOptimizers


class Learner:
    """Networks of a stack whose parameters one optimizer steps together.

    Attributes:
        parameters: of all of them.
        optimizer: of these parameters.
        problems: problems found by the checks of every step (mode=dev), by index of the Session; None without checks.
    """

    def __init__(self, module: nn.Module, spec: OptimizerSpec, device: torch.device) -> None:
        """Take over the parameters of a module, each [S, ...], and move it to the device."""
        self.parameters = Parameters(module.to(device))
        kind = TorchOptimizers if spec.is_path else Optimizer
        self.optimizer: Optimizer | TorchOptimizers = kind(spec, self.parameters.values)
        self.problems: dict[int, str] | None = None

    def step(
        self,
        losses: torch.Tensor,
        sample_weights: torch.Tensor,
        lr: torch.Tensor,
        mask: torch.Tensor,
        max_grad_norm: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """Take one optimizer step on each Session's weighted sum of losses.

        Args:
            losses: of every sample, [S, B].
            sample_weights: weight of each sample in its Session's loss, [S, B].
            lr: learning rate, [S, 1].
            mask: 1 for Sessions that take this step, 0 for others, which keep parameters and moments, [S, 1].
            max_grad_norm: bound on the norm of a Session's gradient, [S, 1]; None for none.

        Returns:
            The norm of each Session's gradient before clipping, [S].
        """
        self.parameters.backward(losses, sample_weights)
        gradients = self.parameters.gradients
        gradients.view(torch.int32).bitwise_and_(-mask.int())  # 0 outside the mask, even in place of NaN
        norm = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        if max_grad_norm is not None:
            gradients.mul_((max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        before = self.parameters.values.clone() if self.problems is not None else None
        self.optimizer.step(gradients, lr, mask)
        if self.problems is not None and before is not None:
            self.problems |= checks.step_problems(self.parameters, before, mask)
            self.problems |= checks.gradient_problems(self.parameters, mask)
        return norm[:, 0]
