"""Action distributions of a policy, and how a stack draws from them.

Draws take their randomness as an argument, made beforehand from each Session's own stream, so that a draw is an
elementwise function and a stack draws what its Sessions would have drawn alone.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

LOG_2PI = math.log(2 * math.pi)


class Categorical:
    """One choice from N, by unnormalised log-probabilities [S, B, N]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self._normalised: Tensor | None = None

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every choice, [S, B, N]."""
        if self._normalised is None:
            self._normalised = self.logits.log_softmax(-1)
        return self._normalised

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability [S, B] of actions [S, B]."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, [S, B]."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions [S, B] with Gumbel noise [S, B, N] (Gumbel-max: Maddison, Tarlow & Minka 2014, section 2)."""
        return (self.logits + noise).argmax(-1)

    def mode(self) -> Tensor:
        """Return the likeliest actions, [S, B]."""
        return self.logits.argmax(-1)


class MultiCategorical:
    """Several independent choices; their log-probabilities lie one after the other in [S, B, sum of N_k]."""

    def __init__(self, logits: Tensor, sizes: list[int]) -> None:
        self.sizes = sizes
        self.parts = [Categorical(part) for part in logits.split(sizes, -1)]

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability [S, B] of actions [S, B, K]."""
        return _add(part.log_prob(action[..., k]) for k, part in enumerate(self.parts))

    def entropy(self) -> Tensor:
        """Entropy in nats, [S, B]."""
        return _add(part.entropy() for part in self.parts)

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions [S, B, K] with Gumbel noise [S, B, sum of N_k]."""
        pieces = noise.split(self.sizes, -1)
        return torch.stack([part.sample(piece) for part, piece in zip(self.parts, pieces, strict=True)], -1)

    def mode(self) -> Tensor:
        """Return the likeliest actions, [S, B, K]."""
        return torch.stack([part.mode() for part in self.parts], -1)


class Gaussian:
    """Independent normal actions: mean [S, B, A], log standard deviation [S, 1, A]."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [S, B] of actions [S, B, A]."""
        z = (action - self.mean) * (-self.log_std).exp()
        return _add((-0.5 * z * z - self.log_std - 0.5 * LOG_2PI).unbind(-1))

    def entropy(self) -> Tensor:
        """Entropy in nats, [S, B]."""
        return _add((self.log_std + 0.5 * (1 + LOG_2PI)).unbind(-1)).expand(self.mean.shape[:-1])

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions [S, B, A] with standard normal noise [S, B, A]."""
        return self.mean + noise * self.log_std.exp()

    def mode(self) -> Tensor:
        """Return the likeliest actions, [S, B, A]."""
        return self.mean


Distribution = Categorical | MultiCategorical | Gaussian


class ActionHead(nn.Module):
    """Turns a network's output into the distribution that an action space calls for.

    Attributes:
        size: how many numbers the network must give for each observation.
    """

    def __init__(self, space: gym.Space[Any], log_std: float | Tensor, stack: int) -> None:
        """Make the head of a stack of Sessions.

        Args:
            space: Discrete, MultiDiscrete or Box of shape [A].
            log_std: initial log standard deviation of continuous actions, one for all or [S, 1].
            stack: number of Sessions, S.
        """
        super().__init__()
        self.space = space
        self.shape: tuple[int, ...] = ()
        if isinstance(space, gym.spaces.Discrete):
            self.size = int(space.n)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            self.sizes = [int(n) for n in space.nvec]
            self.size, self.shape = sum(self.sizes), (len(self.sizes),)
        else:
            self.size = int(np.prod(space.shape or ()))
            self.shape = (self.size,)
            initial = torch.as_tensor(log_std, dtype=torch.float32).reshape(-1, 1, 1)
            self.log_std = nn.Parameter(initial.expand(stack, 1, self.size).contiguous())

    @property
    def continuous(self) -> bool:
        """Whether actions are numbers on a scale rather than choices."""
        return isinstance(self.space, gym.spaces.Box)

    def forward(self, output: Tensor) -> Distribution:
        """Make the distribution from a network's output [S, B, size]."""
        if self.continuous:
            return Gaussian(output, self.log_std)
        if isinstance(self.space, gym.spaces.Discrete):
            return Categorical(output)
        return MultiCategorical(output, self.sizes)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the randomness of actions for `shape` of them: [*shape, size], float32."""
        if self.continuous:
            return rng.standard_normal((*shape, self.size), dtype=np.float32)
        drawn = rng.standard_exponential((*shape, self.size), dtype=np.float32)
        return -np.log(np.maximum(drawn, np.finfo(np.float32).tiny))


def _add(terms: Any) -> Tensor:
    """Add tensors one after the other: a sum over a stacked axis is added in another order for another stack."""
    total = None
    for term in terms:
        total = term if total is None else total + term
    assert total is not None
    return total
