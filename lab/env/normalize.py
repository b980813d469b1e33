"""Running normalization of observations and rewards, whose state belongs to a Session."""

from typing import Any

import numpy as np

EPSILON = 1e-8  # added to variances; of the first rewards, which may all be the same, it is the whole variance


class RunningMoments:
    """Mean and variance of all that was seen, merged batch by batch (Chan, Golub & LeVeque 1983, equation 2.1)."""

    def __init__(self, size: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(size)
        self.variance = np.ones(size)

    def update(self, batch: np.ndarray) -> None:
        """Merge in a batch [N, size]."""
        if not len(batch):
            return
        # One memory layout whatever the stack, because numpy's order of summation follows it (law 1).
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
        """Go on from what `state` returned."""
        self.count = state["count"]
        self.mean, self.variance = np.array(state["mean"]), np.array(state["variance"])


class RewardScale:
    """Scales rewards by the deviation of the discounted return (Engstrom et al. 2020, section 3, "reward scaling")."""

    def __init__(self, num_envs: int, gamma: float, clip: float) -> None:
        self.moments = RunningMoments(1)
        self.gamma, self.clip = gamma, clip
        self.discounted = np.zeros(num_envs)

    def scale(self, reward: np.ndarray, done: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Take in a horizon of rewards [T, E] and return them scaled; steps that are not valid count for nothing."""
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
        """Go on from what `state` returned."""
        self.moments.restore(state["moments"])
        self.discounted = np.array(state["discounted"])
