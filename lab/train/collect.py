"""Steps the environments of a stack with its agents, one horizon at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lab.common.transfer import upload
from lab.env.guard import ProcessSettings
from lab.env.normalize import RewardScale
from lab.env.rng_isolation import RngWatch, explain_global_draws
from lab.env.vector import Environments
from lab.errors import explain_error
from lab.memory.rollout import Raw, Rollout
from lab.train.agent import Agent
from lab.train.metrics import Episode


class Collector:
    """Collects rollouts [T, S, E, ...] and the episodes that ended in them."""

    def __init__(self, agent: Agent, envs: list[Environments]) -> None:
        """Reset the environments; a Session whose environments raise fails."""
        self.agent, self.envs = agent, envs
        spec, algorithm = agent.spec, agent.algorithm
        self.horizon, self.num_envs, self.stack = algorithm.horizon, spec.env.num_envs, len(envs)
        self.settings = ProcessSettings(flush_denormal=True)
        self.failures: dict[int, tuple[int, str]] = {}  # frame and error by index of the Session
        self.alive = list(range(self.stack))  # Sessions that are still stepped
        self.frame = 0  # of each Session
        self.episodes: list[list[Episode]] = [[] for _ in envs]  # that ended in the last horizon, by Session
        self.scales = [
            RewardScale(self.num_envs, float(gamma), spec.env.normalize_clip)
            for gamma in torch.as_tensor(algorithm.gamma).flatten()
            if spec.env.normalize_rewards
        ]
        size, space = (self.stack, self.num_envs), agent.observations
        self._observation = np.zeros((*size, *space.shape), space.dtype)  # the newest, as the environments gave it
        self._carry = torch.zeros(*size, algorithm.carry_size, device=agent.device)
        self._shared_rngs = {name for env in envs for name in env.shared_rngs}
        self._done_before = np.zeros(size, bool)  # in the last step of the horizon before
        self._return = np.zeros(size)
        self._length = np.zeros(size, np.int64)
        for s, env in enumerate(envs):
            try:
                self._observation[s] = env.reset()
            except Exception as error:
                self.fail(s, explain_error(error))

    def collect(self, heartbeat: Callable[[], None] = lambda: None) -> Rollout:
        """Take a horizon of steps in every Session that has not failed; `heartbeat` is called after each step.

        The rollout's tensors are views of storage [S, T, E, ...], which is its own.
        """
        agent, algorithm, device = self.agent, self.agent.algorithm, self.agent.device
        noise = algorithm.draw_noise(self.horizon, self.num_envs, agent.streams, self.frame / agent.spec.frames)
        noises = upload(noise, device).unbind(0)
        self._allocate()
        raw = torch.from_numpy(self._raw)
        copied = bool(agent.moments) or device.type != "cpu"
        dtype = torch.float32 if agent.moments else raw.dtype
        observations = torch.empty(raw.shape, dtype=dtype, device=device) if copied else raw
        carry, watch = self._carry, RngWatch(self._shared_rngs)
        for t in range(self.horizon):
            if copied:
                observations[:, t] = agent.normalize(raw[:, t])
            chosen, self._carry = algorithm.act(observations[:, t], noises[t], self._carry)
            action = chosen.cpu().numpy()
            if t == 0:
                actions = np.empty((self.stack, self.horizon, *action.shape[1:]), action.dtype)
            actions[:, t] = action
            self._step(t, action)
            if algorithm.carry_size:  # after an autoreset step, the next one is the first of an episode
                reset = self._terminated[:, t - 1] | self._truncated[:, t - 1] if t else self._done_before
                self._carry = self._carry.masked_fill(upload(reset, device).unsqueeze(-1), 0.0)
            heartbeat()
        self.settings.restore()
        if copied:
            observations[:, -1] = agent.normalize(raw[:, -1])
        self._fail_on_global_draws(watch)

        done = self._terminated | self._truncated
        valid = ~np.concatenate([self._done_before[:, None], done[:, :-1]], 1)
        self._done_before, self._observation = done[:, -1].copy(), self._raw[:, -1].copy()
        self._count_episodes(valid, done)
        reward = self._reward
        if self.scales:
            reward = np.stack(
                [scale.scale(*steps) for scale, *steps in zip(self.scales, reward, done, valid, strict=True)]
            )
        agent.update_moments(self._raw[:, :-1], valid)

        columns = np.array([reward, self._terminated, self._truncated & ~self._terminated, valid], np.float32)
        rewards, terminated, truncated, valid_steps = upload(columns, device).transpose(1, 2).unbind(0)
        return Rollout(
            observation=observations.transpose(0, 1),
            action=upload(actions, device).transpose(0, 1),
            reward=rewards,
            terminated=terminated,
            truncated=truncated,
            valid=valid_steps,
            carry=carry,
            raw=self._raw_steps(),
        )

    def _allocate(self) -> None:
        """Make the storage of a horizon of steps, session axis first."""
        steps = (self.stack, self.horizon, self.num_envs)
        self._raw = np.zeros((self.stack, self.horizon + 1, *self._observation.shape[1:]), self._observation.dtype)
        self._raw[:, 0] = self._observation
        self._reward = np.zeros(steps)
        self._terminated, self._truncated = np.zeros(steps, bool), np.zeros(steps, bool)

    def _raw_steps(self) -> Raw | None:
        """Return the horizon before normalization, or None if nothing is normalized."""
        agent = self.agent
        if not (self.scales or agent.moments):
            return None
        statistics = agent.statistics
        if self.scales:
            deviations = np.stack([scale.moments.deviation for scale in self.scales])
            column = upload(deviations.astype(np.float32), agent.device)
            statistics = replace(statistics, reward_deviation=column)
        observation = upload(self._raw, agent.device).transpose(0, 1)
        reward = upload(self._reward.astype(np.float32), agent.device).transpose(0, 1)
        return Raw(observation, reward, statistics)

    def _step(self, t: int, actions: np.ndarray) -> None:
        for s in self.alive[:]:
            try:
                raw, reward, terminated, truncated = self.envs[s].step(actions[s])
            except Exception as error:
                self.fail(s, explain_error(error), self.frame + (t + 1) * self.num_envs)
                continue
            finally:
                self.settings.restore_step_settings()
            self._raw[s, t + 1] = raw
            self._reward[s, t] = reward
            self._terminated[s, t] = terminated
            self._truncated[s, t] = truncated

    def _fail_on_global_draws(self, watch: RngWatch) -> None:
        """Fail all Sessions if global generators were drawn from, because any of them may have done it."""
        changed = watch.changed()
        for s in self.alive[:] if changed else ():
            reason = explain_global_draws(f"env.id={self.agent.spec.env.id}", changed)
            self.fail(s, reason, self.frame + self.horizon * self.num_envs)

    def _count_episodes(self, valid: np.ndarray, done: np.ndarray) -> None:
        self.episodes = [[] for _ in self.envs]
        any_done: list[bool] = np.any(done, axis=(0, 2)).tolist()
        for t in range(self.horizon):
            self.frame += self.num_envs
            self._return += self._reward[:, t]
            self._length += valid[:, t]
            for s, e in np.argwhere(done[:, t]) if any_done[t] else ():
                if s in self.alive:
                    episode = Episode(self.frame, float(self._return[s, e]), int(self._length[s, e]))
                    self.episodes[s].append(episode)
                self._return[s, e] = 0.0
                self._length[s, e] = 0

    def fail(self, index: int, reason: str, frame: int | None = None) -> None:
        """Fail a Session, at the current frame by default; the others continue."""
        self.failures[index] = self.frame if frame is None else frame, reason
        self.drop(index)

    def drop(self, index: int) -> None:
        """Stop stepping and training a Session; the results of the others do not change."""
        self.alive.remove(index)
        self.agent.algorithm.drop(index)

    def renew_environments(self, index: int) -> None:
        """Make a Session's environments again; their current episodes are not counted."""
        self._done_before[index], self._return[index], self._length[index] = False, 0.0, 0
        self._carry[index] = 0.0
        if self.agent.algorithm.replay:
            self.agent.algorithm.replay.cut_episodes(index)
        if self.scales:
            self.scales[index].discounted[:] = 0.0
        try:
            self._observation[index] = self.envs[index].renew()
        except Exception as error:
            self.fail(index, explain_error(error))

    def state(self, index: int) -> dict[str, Any]:
        """Return the state of one Session's environments and episodes, as tensors and plain data."""
        return {
            "environments": self.envs[index].state(),
            "observation": torch.from_numpy(self._observation[index].copy()),
            "done": self._done_before[index].tolist(),
            "carry": self._carry[index].cpu().clone(),
            "return": self._return[index].tolist(),
            "length": self._length[index].tolist(),
            "reward_scale": self.scales[index].state() if self.scales else None,
        }

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Continue one Session from what `state` returned, after its streams were restored."""
        self.envs[index].restore(state["environments"])
        self._observation[index] = state["observation"].numpy()
        self._done_before[index], self._return[index] = state["done"], state["return"]
        self._length[index] = state["length"]
        self._carry[index] = state["carry"].to(self._carry.device)
        if self.scales:
            self.scales[index].restore(state["reward_scale"])
