"""Networks that are optimized together."""

from __future__ import annotations

import torch
from torch import nn

from lab.net import checks
from lab.net.network import Parameters
from lab.net.optimizer import Optimizer, OptimizerSpec
from lab.net.torch_optimizer import TorchOptimizers


class Learner:
    """Networks of a stack whose parameters one optimizer steps together.

    Attributes:
        parameters: of all of them.
        optimizer: of these parameters.
        problems: what checks of every step found (mode=dev), by index of the Session; null if nothing is checked.
    """

    def __init__(self, module: nn.Module, spec: OptimizerSpec, device: torch.device) -> None:
        """Take over the parameters of a module, each [S, ...], of which the device becomes the given one."""
        self.parameters = Parameters(module.to(device))
        kind = TorchOptimizers if spec.is_path else Optimizer
        self.optimizer: Optimizer | TorchOptimizers = kind(spec, self.parameters.values)
        self.problems: dict[int, str] | None = None

    def step(
        self,
        losses: torch.Tensor,
        weight: torch.Tensor,
        lr: torch.Tensor,
        mask: torch.Tensor,
        max_grad_norm: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """Take one step down the weighted sum of losses.

        Args:
            losses: of every sample, [S, B].
            weight: each sample's share of its Session's loss, [S, B].
            lr: learning rate, [S, 1].
            mask: [S, 1], 0 for Sessions that do not take this step.
            max_grad_norm: bound on the norm of a Session's gradient, [S, 1]; null for none.

        Returns:
            The norm of each Session's gradient before it was clipped, [S].
        """
        self.parameters.backward(losses, weight)
        gradients = self.parameters.gradients
        if not all(mask.flatten().tolist()):
            gradients.masked_fill_(mask == 0, 0.0)
        norm = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        if max_grad_norm is not None:
            scale = max_grad_norm / (norm + 1e-6)
            if not all(factor >= 1 for factor in scale.flatten().tolist()):  # of NaN too
                gradients.mul_(scale.clamp_(max=1.0))
        before = self.parameters.values.clone() if self.problems is not None else None
        self.optimizer.step(gradients, lr, mask)
        if self.problems is not None and before is not None:
            self.problems |= checks.step_problems(self.parameters, before, mask)
            self.problems |= checks.gradient_problems(self.parameters, mask)
        return norm[:, 0]
