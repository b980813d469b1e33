"""Action distributions of a policy, and how a stack samples from them.

Samples take their noise as an argument, drawn beforehand from each Session's own stream: sampling is an elementwise
function, and a stack samples what its Sessions would have sampled alone.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lab.common.transfer import upload
from lab.net.layers import in_whole_lanes

LOG_2 = math.log(2)
LOG_2PI = math.log(2 * math.pi)
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # bounds on a network's log standard deviation (Haarnoja et al. 2018)
INSIDE = 1 - 1e-6  # actions are clamped to +-INSIDE before a density is computed
TINY = 1e-6
INVALID = -(2.0**126)  # logit, or value, of an invalid action: below all others, and finite times a weight of 0
NODES, WEIGHTS = (array.tolist() for array in np.polynomial.hermite_e.hermegauss(16))

_softplus = in_whole_lanes(functional.softplus)
_sigmoid = in_whole_lanes(torch.sigmoid)
_atanh = in_whole_lanes(torch.atanh)
_lgamma = in_whole_lanes(torch.lgamma)
_digamma = in_whole_lanes(torch.digamma)


class Distribution:
    """Distributions of actions, one for each sample of [S, B]; A numbers in an action, none for Categorical."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability or log-density [S, B] of actions [S, B, A]."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Return the entropy in nats, [S, B]."""
        raise NotImplementedError

    def sample(self, noise: Tensor) -> Tensor:
        """Sample actions [S, B, A] with the noise that `ActionHead.noise` draws."""
        raise NotImplementedError

    def mode(self) -> Tensor:
        """Return the deterministic actions [S, B, A]: the most likely ones, or those of the mean."""
        raise NotImplementedError


class Categorical(Distribution):
    """One of N actions, by unnormalized log-probabilities [S, B, N]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self._normalized: Tensor | None = None

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every action, [S, B, N]."""
        if self._normalized is None:
            self._normalized = self.logits.log_softmax(-1)
        return self._normalized

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        return (self.logits + noise).argmax(-1)  # Gumbel-max: Maddison, Tarlow & Minka 2014, section 2

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)


class MultiCategorical(Distribution):
    """Several independent categorical actions, whose logits are concatenated to [S, B, sum of N_k]."""

    def __init__(self, logits: Tensor, sizes: list[int]) -> None:
        self.sizes = sizes
        self.parts = [Categorical(part) for part in logits.split(sizes, -1)]

    def log_prob(self, action: Tensor) -> Tensor:
        return reduce(torch.add, (part.log_prob(action[..., k]) for k, part in enumerate(self.parts)))

    def entropy(self) -> Tensor:
        return reduce(torch.add, (part.entropy() for part in self.parts))

    def sample(self, noise: Tensor) -> Tensor:
        pairs = zip(self.parts, noise.split(self.sizes, -1), strict=True)
        return torch.stack([part.sample(piece) for part, piece in pairs], -1)

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self.parts], -1)


class Bernoulli(Distribution):
    """Several independent binary actions, by their log-odds [S, B, A]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def log_prob(self, action: Tensor) -> Tensor:
        return _add(-_softplus((1 - 2 * action) * self.logits))

    def entropy(self) -> Tensor:
        return _add(_softplus(self.logits) - self.logits * _sigmoid(self.logits))

    def sample(self, noise: Tensor) -> Tensor:
        return (self.logits + noise > 0).long()

    def mode(self) -> Tensor:
        return (self.logits > 0).long()


class Gaussian(Distribution):
    """Independent normal actions, by mean [S, B, A] and log standard deviation [S, B, A] or [S, 1, A]."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) * (-self.log_std).exp()
        return _add(-0.5 * z * z - self.log_std - 0.5 * LOG_2PI)

    def entropy(self) -> Tensor:
        return _add(self.log_std + 0.5 * (1 + LOG_2PI)).expand(self.mean.shape[:-1])

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + noise * self.log_std.exp()

    def mode(self) -> Tensor:
        return self.mean


class TanhGaussian(Gaussian):
    """Normal actions squashed to -1..1 by tanh (Haarnoja et al. 2018, "Soft actor-critic algorithms", appendix C)."""

    def log_prob(self, action: Tensor) -> Tensor:
        u = _atanh(action.clamp(-INSIDE, INSIDE))
        return self._log_prob(u, (u - self.mean) * (-self.log_std).exp())

    def _log_prob(self, u: Tensor, z: Tensor) -> Tensor:
        """Return the log-density [S, B] of actions tanh(u), with u at z deviations from the mean."""
        return _add(-0.5 * z * z - self.log_std - 0.5 * LOG_2PI - log_slope_of_tanh(u))

    def sample(self, noise: Tensor) -> Tensor:
        return torch.tanh(super().sample(noise))

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sample actions [S, B, A] with standard normal noise [S, B, A]; return them and their log-densities [S, B].

        Gradients flow through both. The density is computed before tanh, so that none is lost to rounding.
        """
        u = super().sample(noise)
        return torch.tanh(u), self._log_prob(u, noise)

    def entropy(self) -> Tensor:
        # The part of tanh is integrated numerically (Gauss-Hermite quadrature).
        std, total = self.log_std.exp(), math.sqrt(2 * math.pi)
        terms = (
            weight / total * log_slope_of_tanh(self.mean + node * std)
            for node, weight in zip(NODES, WEIGHTS, strict=True)
        )
        return _add(self.log_std + 0.5 * (1 + LOG_2PI) + reduce(torch.add, terms))

    def mode(self) -> Tensor:
        return torch.tanh(self.mean)


class Beta(Distribution):
    """Independent actions from -1 to 1 by scaled beta distributions (Chou, Maturana & Scherer 2017).

    Both parameters [S, B, A] are above 1, so that each has one peak (section 4).
    """

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        self.alpha, self.beta = alpha, beta

    @property
    def _log_scale(self) -> Tensor:
        """Log of the density's denominator, [S, B, A]."""
        return _lgamma(self.alpha) + _lgamma(self.beta) - _lgamma(self.alpha + self.beta) + LOG_2

    def log_prob(self, action: Tensor) -> Tensor:
        action = action.clamp(-INSIDE, INSIDE)
        above, below = (0.5 * (1 + action)).log(), (0.5 * (1 - action)).log()
        return _add((self.alpha - 1) * above + (self.beta - 1) * below - self._log_scale)

    def entropy(self) -> Tensor:
        total = self.alpha + self.beta
        spread = (self.alpha - 1) * _digamma(self.alpha) + (self.beta - 1) * _digamma(self.beta)
        return _add(self._log_scale - spread + (total - 2) * _digamma(total))

    def sample(self, noise: Tensor) -> Tensor:
        from scipy.special import betaincinv

        arrays = torch.stack([self.alpha, self.beta, noise]).detach().cpu().numpy().astype(np.float64)  # read at once
        quantiles = (2 * betaincinv(*arrays) - 1).astype(np.float32)
        return upload(quantiles, noise.device).clamp_(-INSIDE, INSIDE)

    def mode(self) -> Tensor:
        above, below = self.alpha - 1 + TINY, self.beta - 1 + TINY  # defined for parameters of 1 too
        return (above - below) / (above + below)


def log_slope_of_tanh(x: Tensor) -> Tensor:
    """Return log(1 - tanh(x)^2), elementwise, exact also where tanh is 1 in floating point."""
    return 2 * (LOG_2 - x - _softplus(-2 * x))


class ActionHead(nn.Module):
    """Maps a network's output to the distribution that an action space needs.

    Attributes:
        size: numbers of the network's output for each observation.
        shape: shape of an action.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        log_std: float | Tensor,
        stack: int,
        kind: str = "auto",
        state_dependent_std: bool = False,
    ) -> None:
        """Make the head of a stack of S Sessions.

        Args:
            space: Discrete, MultiDiscrete, MultiBinary or Box.
            log_std: initial log standard deviation of continuous actions, a number or [S, 1].
            stack: number of Sessions.
            kind: distribution of continuous actions: gaussian, tanh_gaussian, beta, or auto for gaussian.
            state_dependent_std: whether the standard deviation is an output of the network, not a parameter.
        """
        super().__init__()
        self.space, self.kind = space, "gaussian" if kind == "auto" else kind
        self.continuous = isinstance(space, gym.spaces.Box)
        self.shape: tuple[int, ...] = ()
        self.log_std: Tensor | None = None
        if isinstance(space, gym.spaces.Discrete):
            self.size = int(space.n)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            self.sizes = [int(n) for n in space.nvec.ravel()]
            self.size, self.shape = sum(self.sizes), (len(self.sizes),)
        else:
            self.action_dim = int(np.prod(space.shape or ()))
            pairs = self.continuous and (self.kind == "beta" or state_dependent_std)
            self.size, self.shape = self.action_dim * (2 if pairs else 1), (self.action_dim,)
        if self.continuous and self.kind != "beta":
            start = torch.as_tensor(log_std, dtype=torch.float32).reshape(-1, 1, 1)
            if state_dependent_std:
                self.register_buffer("start", start.repeat(stack // len(start), 1, 1), persistent=False)
            else:
                self.log_std = nn.Parameter(start.repeat(stack // len(start), 1, self.action_dim))

    def forward(self, output: Tensor, mask: Tensor | None = None) -> Distribution:
        """Return the distribution for a network's output [S, B, size]; a mask [S, B, size] is 0 for invalid choices."""
        output = mask_invalid(output, mask)
        if isinstance(self.space, gym.spaces.Discrete):
            return Categorical(output)
        if isinstance(self.space, gym.spaces.MultiDiscrete):
            return MultiCategorical(output, self.sizes)
        if not self.continuous:
            return Bernoulli(output)
        if self.kind == "beta":
            return Beta(*(1 + _softplus(part) for part in output.split(self.action_dim, -1)))
        mean, log_std = output, self.log_std
        if log_std is None:
            mean, deviation = output.split(self.action_dim, -1)
            log_std = (self.start + deviation).clamp(LOG_STD_MIN, LOG_STD_MAX)
        return TanhGaussian(mean, log_std) if self.kind == "tanh_gaussian" else Gaussian(mean, log_std)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the noise of `shape` actions, [*shape, N], float32."""
        if self.continuous and self.kind == "beta":
            return rng.random((*shape, self.action_dim), dtype=np.float32)
        if self.continuous:
            return rng.standard_normal((*shape, self.action_dim), dtype=np.float32)
        if isinstance(self.space, gym.spaces.MultiBinary):
            return rng.logistic(size=(*shape, self.size)).astype(np.float32)
        return gumbel(rng, (*shape, self.size))


def mask_invalid(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return logits or values [..., A] with INVALID in place of those where a mask [..., A] is 0; None masks none."""
    return values if mask is None else torch.where(mask > 0, values, INVALID)


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard Gumbel noise, float32."""
    waits = rng.standard_exponential(shape, dtype=np.float32)
    return -np.log(np.maximum(waits, np.finfo(np.float32).tiny))


def _add(terms: Tensor) -> Tensor:
    """Sum over the last axis, a term at a time: a reduction may add in another order for another stack."""
    return reduce(torch.add, terms.unbind(-1))
