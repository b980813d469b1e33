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
from torch.nn import functional

from lab.net.layers import in_whole_lanes

LOG_2 = math.log(2)
LOG_2PI = math.log(2 * math.pi)
LOG_STD_LEAST, LOG_STD_MOST = -20.0, 2.0  # bounds on what a network says of a deviation (Haarnoja et al. 2018)
INSIDE = 1 - 1e-6  # nearest to its bounds that an action is taken to be where a density is computed
TINY = 1e-6
NODES, WEIGHTS = (array.tolist() for array in np.polynomial.hermite_e.hermegauss(16))


_softplus = in_whole_lanes(functional.softplus)
_sigmoid = in_whole_lanes(torch.sigmoid)
_atanh = in_whole_lanes(torch.atanh)
_lgamma = in_whole_lanes(torch.lgamma)
_digamma = in_whole_lanes(torch.digamma)


class Categorical:
    """One choice from N, by unnormalized log-probabilities [S, B, N]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self._normalized: Tensor | None = None

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every choice, [S, B, N]."""
        if self._normalized is None:
            self._normalized = self.logits.log_softmax(-1)
        return self._normalized

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


class Bernoulli:
    """Several independent choices of yes or no, by the log-odds of yes [S, B, K]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability [S, B] of actions [S, B, K], 1 or 0 each."""
        return _add((-_softplus((1 - 2 * action) * self.logits)).unbind(-1))

    def entropy(self) -> Tensor:
        """Entropy in nats, [S, B]."""
        return _add((_softplus(self.logits) - self.logits * _sigmoid(self.logits)).unbind(-1))

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions [S, B, K] with logistic noise [S, B, K]."""
        return (self.logits + noise > 0).long()

    def mode(self) -> Tensor:
        """Return the likeliest actions, [S, B, K]."""
        return (self.logits > 0).long()


class Gaussian:
    """Independent normal actions."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        """Make it of mean [S, B, A] and log standard deviation, [S, B, A] or [S, 1, A]."""
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


class TanhGaussian:
    """Normal numbers brought to -1..1 by tanh (Haarnoja et al. 2018, "Soft actor-critic algorithms", appendix C)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        """Make it of mean [S, B, A] and log standard deviation, [S, B, A] or [S, 1, A], before tanh."""
        self.mean, self.log_std = mean, log_std

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [S, B] of actions [S, B, A]."""
        before = _atanh(action.clamp(-INSIDE, INSIDE))
        return self._log_prob(before, (before - self.mean) * (-self.log_std).exp())

    def _log_prob(self, before: Tensor, z: Tensor) -> Tensor:
        """Return the log-density [S, B] of what was `before` tanh, `z` deviations from the mean."""
        return _add((-0.5 * z * z - self.log_std - 0.5 * LOG_2PI - log_slope_of_tanh(before)).unbind(-1))

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions [S, B, A] with standard normal noise [S, B, A]."""
        return torch.tanh(self.mean + noise * self.log_std.exp())

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions [S, B, A] with standard normal noise [S, B, A]; return them and their log-densities [S, B].

        Gradients flow through both. A density is computed of what was before tanh, so that none is lost to rounding.
        """
        before = self.mean + noise * self.log_std.exp()
        return torch.tanh(before), self._log_prob(before, noise)

    def entropy(self) -> Tensor:
        """Entropy in nats, [S, B], of which the share of tanh is integrated numerically (Gauss-Hermite quadrature)."""
        std = self.log_std.exp()
        share = math.sqrt(2 * math.pi)
        slopes = _add(
            weight / share * log_slope_of_tanh(self.mean + node * std)
            for node, weight in zip(NODES, WEIGHTS, strict=True)
        )
        return _add((self.log_std + 0.5 * (1 + LOG_2PI) + slopes).unbind(-1))

    def mode(self) -> Tensor:
        """Return the actions [S, B, A] of the mean."""
        return torch.tanh(self.mean)


class Beta:
    """Independent actions from -1 to 1 by beta distributions spread over them (Chou, Maturana & Scherer 2017)."""

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        """Make it of both parameters, [S, B, A], above 1, so that it has one peak (section 4)."""
        self.alpha, self.beta = alpha, beta

    @property
    def _log_scale(self) -> Tensor:
        """Log of what the density is divided by, [S, B, A]."""
        return _lgamma(self.alpha) + _lgamma(self.beta) - _lgamma(self.alpha + self.beta) + LOG_2

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [S, B] of actions [S, B, A]."""
        action = action.clamp(-INSIDE, INSIDE)
        above, below = (0.5 * (1 + action)).log(), (0.5 * (1 - action)).log()
        return _add(((self.alpha - 1) * above + (self.beta - 1) * below - self._log_scale).unbind(-1))

    def entropy(self) -> Tensor:
        """Entropy in nats, [S, B]."""
        total = self.alpha + self.beta
        spread = (self.alpha - 1) * _digamma(self.alpha) + (self.beta - 1) * _digamma(self.beta)
        return _add((self._log_scale - spread + (total - 2) * _digamma(total)).unbind(-1))

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions [S, B, A] with noise [S, B, A] from 0 to 1: the quantiles at these shares."""
        from scipy.special import betaincinv

        arrays = (part.detach().cpu().numpy().astype(np.float64) for part in (self.alpha, self.beta, noise))
        drawn = torch.from_numpy((2 * betaincinv(*arrays) - 1).astype(np.float32))
        return drawn.clamp_(-INSIDE, INSIDE).to(noise.device)

    def mode(self) -> Tensor:
        """Return the actions [S, B, A] of the highest density."""
        above, below = self.alpha - 1 + TINY, self.beta - 1 + TINY  # even parameters of 1 have a middle
        return (above - below) / (above + below)


def log_slope_of_tanh(x: Tensor) -> Tensor:
    """Return log(1 - tanh(x)^2), elementwise, exact also where tanh is 1 in floating point."""
    return 2 * (LOG_2 - x - _softplus(-2 * x))


Distribution = Categorical | MultiCategorical | Bernoulli | Gaussian | TanhGaussian | Beta


class ActionHead(nn.Module):
    """Turns a network's output into the distribution that an action space calls for.

    Attributes:
        size: how many numbers the network must give for each observation.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        log_std: float | Tensor,
        stack: int,
        kind: str = "auto",
        state_dependent_std: bool = False,
    ) -> None:
        """Make the head of a stack of Sessions.

        Args:
            space: Discrete, MultiDiscrete, MultiBinary or Box.
            log_std: initial log standard deviation of continuous actions, one for all or [S, 1].
            stack: number of Sessions, S.
            kind: distribution of continuous actions: gaussian, tanh_gaussian, beta, or auto for gaussian.
            state_dependent_std: whether their deviation is an output of the network too, not a parameter.
        """
        super().__init__()
        self.space = space
        self.kind = "gaussian" if kind == "auto" else kind
        self.shape: tuple[int, ...] = ()
        if isinstance(space, gym.spaces.Discrete):
            self.size = int(space.n)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            self.sizes = [int(n) for n in space.nvec]
            self.size, self.shape = sum(self.sizes), (len(self.sizes),)
        else:
            self.numbers = self.size = int(np.prod(space.shape or ()))
            self.shape = (self.numbers,)
        if not self.continuous or self.kind == "beta":
            self.size *= 2 if self.continuous else 1
            return
        initial = torch.as_tensor(log_std, dtype=torch.float32).reshape(-1, 1, 1)
        self.log_std: Tensor | None = None
        if state_dependent_std:
            self.size *= 2
            self.register_buffer("start", initial.expand(stack, 1, 1).contiguous(), persistent=False)
        else:
            self.log_std = nn.Parameter(initial.expand(stack, 1, self.size).contiguous())

    @property
    def continuous(self) -> bool:
        """Whether actions are numbers on a scale rather than choices."""
        return isinstance(self.space, gym.spaces.Box)

    def forward(self, output: Tensor) -> Distribution:
        """Make the distribution from a network's output [S, B, size]."""
        if isinstance(self.space, gym.spaces.Discrete):
            return Categorical(output)
        if isinstance(self.space, gym.spaces.MultiDiscrete):
            return MultiCategorical(output, self.sizes)
        if not self.continuous:
            return Bernoulli(output)
        if self.kind == "beta":
            alpha, beta = (1 + _softplus(part) for part in output.split(self.numbers, -1))
            return Beta(alpha, beta)
        mean, log_std = output, self.log_std
        if log_std is None:
            mean, deviation = output.split(self.numbers, -1)
            log_std = (self.start + deviation).clamp(LOG_STD_LEAST, LOG_STD_MOST)
        return TanhGaussian(mean, log_std) if self.kind == "tanh_gaussian" else Gaussian(mean, log_std)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the randomness of actions for `shape` of them: [*shape, numbers of the noise of one], float32."""
        if self.continuous and self.kind == "beta":
            return rng.random((*shape, self.numbers), dtype=np.float32)
        if self.continuous:
            return rng.standard_normal((*shape, self.numbers), dtype=np.float32)
        if isinstance(self.space, gym.spaces.MultiBinary):
            return rng.logistic(size=(*shape, self.size)).astype(np.float32)
        return gumbel(rng, (*shape, self.size))


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard Gumbel noise, float32."""
    drawn = rng.standard_exponential(shape, dtype=np.float32)
    return -np.log(np.maximum(drawn, np.finfo(np.float32).tiny))


def _add(terms: Any) -> Tensor:
    """Add tensors one after the other: a sum over a stacked axis is added in another order for another stack."""
    total = None
    for term in terms:
        total = term if total is None else total + term
    assert total is not None
    return total
