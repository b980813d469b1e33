"""Running normalization of the observations and rewards of one Session."""

from typing import Any

import numpy as np

EPSILON = 1e-8  # added to variances; while all rewards are equal, it is the whole variance


class RunningMoments:
    """Running mean and variance, merged batch by batch (Chan, Golub & LeVeque 1983, equation 2.1)."""

    def __init__(self, size: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(size)
        self.variance = np.ones(size)

    def update(self, batch: np.ndarray) -> None:
        """Update with a batch [N, size]."""
        if not len(batch):
            return
        # The same memory layout in any stack, because numpy's order of summation depends on it (law 1).
        batch = np.ascontiguousarray(batch, dtype=np.float64)
        count, mean, variance = len(batch), batch.mean(0), batch.var(0)
        total = self.count + count
        delta = mean - self.mean
        moment = self.variance * self.count + variance * count + delta**2 * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.variance = moment / total
        self.count = total

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation [size]."""
        return np.sqrt(self.variance + EPSILON)

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"count": self.count, "mean": self.mean.tolist(), "variance": self.variance.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.count = state["count"]
        self.mean, self.variance = np.array(state["mean"]), np.array(state["variance"])


class RewardScale:
    """Scales rewards by the standard deviation of the discounted return (Engstrom et al. 2020, section 3)."""

    def __init__(self, num_envs: int, gamma: float, clip: float) -> None:
        self.moments = RunningMoments(1)
        self.gamma, self.clip = gamma, clip
        self.discounted = np.zeros(num_envs)

    def scale(self, reward: np.ndarray, done: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Update with a horizon of rewards [T, E], ignoring steps that are not valid, and return them scaled."""
        returns = np.zeros(reward.shape)
        for t in range(len(reward)):
            self.discounted = np.where(valid[t], self.gamma * self.discounted + reward[t], 0.0)
            returns[t] = self.discounted
            self.discounted = np.where(done[t], 0.0, self.discounted)
        self.moments.update(returns[valid][:, None])
        return np.clip(reward / self.moments.deviation, -self.clip, self.clip)

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"moments": self.moments.state(), "discounted": self.discounted.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.moments.restore(state["moments"])
        self.discounted = np.array(state["discounted"])
