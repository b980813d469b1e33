"""A module that was written for one agent, stacked: each Session's copy is called with parameters of its own."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lab.net.network import scaled


class StackedModule(nn.Module):
    """Copies of a module, one for each Session, as one whose parameters and buffers are stacked, [S, ...].

    What a copy draws from torch's generator, as dropout does, comes from the Session's own seed and the number of times
    that gradients were taken before: never from what others have drawn, and the same after a resumption (law 2).
    """

    draws: Tensor

    def __init__(self, copies: list[nn.Module], seeds: list[int]) -> None:
        """Stack copies of a module.

        Args:
            copies: one for each Session; the first becomes the stacked one.
            seeds: of each Session's draws.
        """
        super().__init__()
        self.module = copies[0]
        with torch.no_grad():
            for kind in ("named_parameters", "named_buffers"):
                several = [dict(getattr(copy, kind)()) for copy in copies]
                for name, value in several[0].items():
                    value.data = torch.stack([own[name].data for own in several])
        self.takes_extra = "extra" in inspect.signature(self.module.forward).parameters
        self.register_buffer("draws", torch.tensor(seeds))

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        learning = torch.is_grad_enabled()
        self.module.train(learning)
        # Taken apart once for all Sessions: the gradient is then put together, not added up from slices.
        parameters = {name: value.unbind(0) for name, value in self.module.named_parameters()}
        buffers = dict(self.module.named_buffers())
        seeds = self.draws.tolist()
        features = []
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            for s, seen in enumerate(x.unbind(0)):
                own = {name: slices[s] for name, slices in parameters.items()}
                remembered = {name: buffer[s] for name, buffer in buffers.items()}
                given = [scaled(seen), *([extra[s]] if extra is not None and self.takes_extra else [])]
                torch.default_generator.manual_seed(seeds[s])  # torch.manual_seed takes a hundred times as long
                if x.is_cuda:
                    torch.cuda.manual_seed(seeds[s])
                values = own | remembered
                features.append(functional_call(self.module, values, tuple(given)))
                for name, buffer in remembered.items():
                    if values[name] is not buffer:  # the module has put another in its place
                        buffer.copy_(values[name].detach())
        if learning:
            self.draws += 1
        return torch.stack(features)
