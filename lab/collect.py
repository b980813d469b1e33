"""Collecting: stepping every Session's environments through a horizon, and counting their episodes."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import numpy as np
import torch

from lab.agent import Agent
from lab.env.normalise import RewardScale
from lab.env.vector import Environments
from lab.memory.rollout import Rollout


@dataclass
class Episode:
    """A finished episode: the Session's frame count at its end, its return (unscaled) and its length in steps."""

    frame: int
    episode_return: float
    length: int


class Collector:
    """Steps the environments of a stack with its agents.

    Attributes:
        failures: tracebacks by index of Sessions whose environment raised; they are stepped no more.
        episodes: of each Session, those that ended in the last horizon.
        frame: frames each Session has done.
    """

    def __init__(self, agent: Agent, envs: list[Environments]) -> None:
        self.agent, self.envs = agent, envs
        spec, algorithm = agent.spec, agent.algorithm
        self.horizon, self.num_envs, self.stack = algorithm.horizon, spec.env.num_envs, len(envs)
        self.failures: dict[int, str] = {}
        self.alive = list(range(self.stack))
        self.frame = 0
        self.episodes: list[list[Episode]] = [[] for _ in envs]
        self.scales = [
            RewardScale(self.num_envs, float(gamma), spec.env.normalise_clip)
            for gamma in torch.as_tensor(algorithm.gamma).flatten()
            if spec.env.normalise_rewards
        ]
        first = np.stack([env.reset() for env in envs])
        steps = (self.horizon, self.stack, self.num_envs)
        self._raw = np.zeros((self.horizon + 1, *first.shape[:2], first.shape[2]), np.float32)
        self._raw[-1] = first
        self._reward = np.zeros(steps)
        self._terminated, self._truncated = np.zeros(steps, bool), np.zeros(steps, bool)
        self._done_before = np.zeros(steps[1:], bool)
        self._return = np.zeros(steps[1:])
        self._length = np.zeros(steps[1:], np.int64)

    def collect(self) -> Rollout:
        """Take a horizon of steps in every Session that has not failed."""
        agent, algorithm = self.agent, self.agent.algorithm
        noise = algorithm.noise(self.horizon, self.num_envs, agent.streams).to(agent.device)
        self._raw[0] = self._raw[-1]
        raw = torch.from_numpy(self._raw)
        seen, actions = [], []
        for t in range(self.horizon):
            seen.append(agent.observe(raw[t]))
            action = algorithm.act(seen[t], noise[t])
            actions.append(action)
            self._step(t, action.cpu().numpy())
        seen.append(agent.observe(raw[self.horizon]))

        done = self._terminated | self._truncated
        valid = ~np.concatenate([self._done_before[None], done[:-1]])
        self._done_before = done[-1].copy()
        self._count(valid, done)
        reward = self._reward
        if self.scales:
            pairs = enumerate(self.scales)
            scaled = [scale.scale(reward[:, s].copy(), done[:, s], valid[:, s]) for s, scale in pairs]
            reward = np.stack(scaled, 1)
        agent.take_in(self._raw[:-1], valid)

        def steps(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(agent.device)

        return Rollout(
            observation=torch.stack(seen),
            action=torch.stack(actions),
            reward=steps(reward),
            terminated=steps(self._terminated),
            truncated=steps(self._truncated & ~self._terminated),
            valid=steps(valid),
        )

    def _step(self, t: int, actions: np.ndarray) -> None:
        for s in self.alive[:]:
            try:
                raw, reward, terminated, truncated = self.envs[s].step(actions[s])
            except Exception:
                self.fail(s, traceback.format_exc())
                continue
            self._raw[t + 1, s] = raw
            self._reward[t, s] = reward
            self._terminated[t, s] = terminated
            self._truncated[t, s] = truncated

    def fail(self, index: int, reason: str) -> None:
        """Leave a Session out from here on, for a reason (a traceback)."""
        self.failures[index] = reason
        self.alive.remove(index)
        self.agent.algorithm.active[index] = 0.0

    def _count(self, valid: np.ndarray, done: np.ndarray) -> None:
        self.episodes = [[] for _ in self.envs]
        for t in range(self.horizon):
            self.frame += self.num_envs
            self._return += self._reward[t]
            self._length += valid[t]
            for s, e in np.argwhere(done[t]):
                if s not in self.failures:
                    episode = Episode(self.frame, float(self._return[s, e]), int(self._length[s, e]))
                    self.episodes[s].append(episode)
                self._return[s, e] = 0.0
                self._length[s, e] = 0


def evaluate(
    agent: Agent, envs: dict[int, Environments], episodes: int
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Play whole episodes with the deterministic policy, one in each environment.

    Args:
        agent: the agents of the stack.
        envs: evaluation environments by index of the Session; others are left out.
        episodes: environments that each Session has.

    Returns:
        Returns and lengths [2, episodes] by index, and the traceback of any Session whose environment raised.
    """
    stack = len(agent.streams)
    size = agent.algorithm.parameters.values.shape[0]
    assert stack == size
    figures: dict[int, np.ndarray] = {}
    failures: dict[int, str] = {}
    raw: np.ndarray | None = None
    going: dict[int, np.ndarray] = {}
    for s, env in envs.items():
        try:
            first = env.reset()
        except Exception:
            failures[s] = traceback.format_exc()
            continue
        if raw is None:
            raw = np.zeros((stack, *first.shape), np.float32)
        raw[s] = first
        figures[s], going[s] = np.zeros((2, episodes)), np.ones(episodes, bool)
    while going:
        assert raw is not None
        action = agent.algorithm.act(agent.observe(torch.from_numpy(raw)), None).cpu().numpy()
        for s in list(going):
            try:
                raw[s], reward, terminated, truncated = envs[s].step(action[s])
            except Exception:
                failures[s] = traceback.format_exc()
                del going[s], figures[s]
                continue
            figures[s] += going[s] * np.stack([reward, np.ones(episodes)])
            going[s] &= ~(terminated | truncated)
            if not going[s].any():
                del going[s]
    return figures, failures
