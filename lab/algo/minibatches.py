"""Minibatches of a horizon of steps: their size, and the order in which samples fall into them."""

from __future__ import annotations

import numpy as np

from lab.common.imports import torch
from lab.common.streams import Streams
from lab.errors import LabError


def check_minibatch(minibatch: int, horizon: int, num_envs: int) -> None:
    """Raise LabError for a minibatch that does not divide the samples of a horizon."""
    samples = horizon * num_envs
    if minibatch < 2 or samples % minibatch:
        divisors = [n for n in range(2, samples + 1) if samples % n == 0]
        nearest = sorted(sorted(divisors, key=lambda n: abs(n - minibatch))[:4])
        raise LabError(
            f"algo.batch_size={minibatch} does not divide the rollout of {samples} samples (algo.horizon="
            f"{horizon} times env.num_envs={num_envs}), or is below 2: the nearest that will do are "
            f"{', '.join(map(str, nearest)) or 'none, as the rollout is too short'}."
        )


def orders(streams: list[Streams], epochs: int, number: int) -> torch.Tensor:
    """Draw the order of so many samples in every epoch, [S, epochs, N].

    All at once, so that a Session that stops early has drawn as much as one that does not (law 1).
    """
    drawn = [[stream.minibatches.permutation(number) for _ in range(epochs)] for stream in streams]
    return torch.tensor(np.array(drawn))
