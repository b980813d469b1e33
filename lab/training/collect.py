"""Steps the environments of a stack with its agents, one horizon at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lab.common.transfer import upload
from lab.env.normalize import RewardScale
from lab.env.rng_isolation import RngWatch, explain_global_draws
from lab.env.stacked import StackedEnvironments
from lab.env.vector import Environments
from lab.env.vector_envs import Steps
from lab.errors import explain_error
from lab.memory.rollout import Raw, Rollout
from lab.training.agent import Agent
from lab.training.metrics import Episode


class Collector:
    """Collects rollouts [T, S, E, ...] and the episodes that ended in them."""

    def __init__(self, agent: Agent, envs: list[Environments]) -> None:
        """Reset the environments; a Session whose environments raise fails."""
        self.agent, self.envs = agent, StackedEnvironments(dict(enumerate(envs)))
        spec, algorithm = agent.spec, agent.algorithm
        self.horizon, self.num_envs, self.stack = algorithm.horizon, spec.env.num_envs, len(envs)
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
        np.empty((self.horizon + 1, *self._observation.shape), space.dtype)  # too long a horizon fails before it begins
        self._carry = torch.zeros(*size, algorithm.carry_size, device=agent.device)
        self._done_before = np.zeros(size, bool)  # in the last step of the horizon before
        self._return = np.zeros(size)
        self._length = np.zeros(size, np.int64)
        for s in range(self.stack):
            try:
                self._observation[s] = self.envs.reset(s)
            except Exception as error:
                self.fail(s, explain_error(error))

    def collect(self, heartbeat: Callable[[], None] = lambda: None) -> Rollout:
        """Take a horizon of steps in every Session that has not failed; `heartbeat` is called after each step.

        The rollout's tensors are views of storage [S, T, E, ...], which is its own.
        """
        agent, algorithm, device = self.agent, self.agent.algorithm, self.agent.device
        fraction_done = self.frame / agent.spec.planned_frames(self.frame)
        noise = algorithm.draw_noise(self.horizon, self.num_envs, agent.streams, fraction_done)
        size = (self.stack, self.horizon, self.num_envs)
        raw = np.zeros((self.stack, self.horizon + 1, *self._observation.shape[1:]), self._observation.dtype)
        raw[:, 0] = self._observation
        steps = Steps.around(raw[:, 1:], size, len(agent.spec.env.reported))
        inputs = torch.from_numpy(raw)
        copied = bool(agent.moments) or device.type != "cpu"
        dtype = torch.float32 if agent.moments else inputs.dtype
        observations = torch.empty(inputs.shape, dtype=dtype, device=device) if copied else inputs
        carry, watch, done = self._carry, RngWatch(self.envs.shared_rngs), self._done_before
        views = inputs.unbind(1)
        normalized = observations.unbind(1) if copied else views
        rows = zip(views, normalized, upload(noise, device).unbind(0), steps.by_time(), strict=False)
        for t, (row, observation, noises, results) in enumerate(rows):
            if copied:
                observation.copy_(agent.normalize(row))
            chosen, self._carry = algorithm.act(observation, noises, self._carry)
            action = chosen.cpu().numpy()
            if t == 0:
                actions = np.empty((self.stack, self.horizon, *action.shape[1:]), action.dtype)
            actions[:, t] = action
            failures = self.envs.step(self.alive, action, results)
            for s, reason in failures.items():
                self.fail(s, reason, self.frame + (t + 1) * self.num_envs)
            if algorithm.carry_size:  # after an autoreset step, the next one is the first of an episode
                self._carry = self._carry.masked_fill(upload(done, device).unsqueeze(-1), 0.0)
                done = results.terminated | results.truncated
            heartbeat()
        self.envs.settings.restore()
        if copied:
            observations[:, -1] = agent.normalize(inputs[:, -1])
        self._fail_on_global_draws(watch)
        self._observation = raw[:, -1].copy()

        columns = np.empty((4, *size), np.float32)  # reward, terminated, truncated, valid
        done = steps.terminated | steps.truncated
        valid = np.empty(size, bool)
        np.logical_not(self._done_before, out=valid[:, 0])
        np.logical_not(done[:, :-1], out=valid[:, 1:])
        self._done_before = done[:, -1]
        self._count_episodes(steps, valid)
        columns[0] = steps.reward
        for scale, *session in zip(self.scales, columns[0], steps.reward, done, valid, strict=False):
            session[0][:] = scale.scale(*session[1:])
        columns[1], columns[2], columns[3] = steps.terminated, steps.truncated & ~steps.terminated, valid
        agent.update_moments(raw[:, :-1], valid)
        rewards, terminated, truncated, valid_steps = upload(columns, device).transpose(1, 2).unbind(0)
        return Rollout(
            observation=observations.transpose(0, 1),
            action=upload(actions, device).transpose(0, 1),
            reward=rewards,
            terminated=terminated,
            truncated=truncated,
            valid=valid_steps,
            carry=carry,
            raw=self._raw(inputs, steps.reward) if self.scales or agent.moments else None,
        )

    def _raw(self, observation: torch.Tensor, reward: np.ndarray) -> Raw:
        """Return the horizon before normalization."""
        device, statistics = self.agent.device, self.agent.statistics
        if self.scales:
            deviations = np.stack([scale.moments.deviation for scale in self.scales])
            column = upload(deviations.astype(np.float32), device)
            statistics = replace(statistics, reward_deviation=column)
        rewards = upload(reward.astype(np.float32), device)
        return Raw(upload(observation, device).transpose(0, 1), rewards.transpose(0, 1), statistics)

    def _fail_on_global_draws(self, watch: RngWatch) -> None:
        """Fail all Sessions if global generators were drawn from, because any of them may have done it."""
        changed = watch.changed()
        for s in self.alive[:] if changed else ():
            reason = explain_global_draws(f"env.id={self.agent.spec.env.id}", changed)
            self.fail(s, reason, self.frame + self.horizon * self.num_envs)

    def _count_episodes(self, steps: Steps, valid: np.ndarray) -> None:
        """Add a horizon of steps [S, T, E] to the current episodes, and list those that ended."""
        score, over = steps.score, steps.over
        self.episodes = [[] for _ in range(self.stack)]
        start = np.zeros((self.stack, self.num_envs), np.int64)  # first step of the current episode in the horizon
        ends = np.argwhere(over.swapaxes(0, 1)).tolist() if over.any() else []
        for t, s, e in ends:
            part = slice(start[s, e], t + 1)
            if s in self.alive:
                total = _sum_in_order(self._return[s, e], score[s, part, e])
                length = int(self._length[s, e] + valid[s, part, e].sum())
                # A reset may show that the episode had ended at the step before.
                frame = self.frame + (t + int(valid[s, t, e])) * self.num_envs
                metrics = tuple(steps.reported[s, t, e, 2:].tolist())
                self.episodes[s].append(Episode(frame, float(total), length, metrics))
            self._return[s, e], self._length[s, e], start[s, e] = 0.0, 0, t + 1
        for episodes in self.episodes:
            episodes.sort(key=lambda episode: episode.frame)
        if ends:
            current = np.arange(self.horizon)[:, None] >= start[:, None]
            score, valid = np.where(current, score, 0.0), valid & current
        self._return = _sum_in_order(self._return, score.swapaxes(0, 1))
        self._length += valid.sum(1)
        self.frame += self.horizon * self.num_envs

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
            self._observation[index] = self.envs.renew(index)
        except Exception as error:
            self.fail(index, explain_error(error))

    def state(self, index: int) -> dict[str, Any]:
        """Return the state of one Session's environments and episodes, as tensors and plain data."""
        return {
            "environments": self.envs.state(index),
            "observation": torch.from_numpy(self._observation[index].copy()),
            "done": self._done_before[index].tolist(),
            "carry": self._carry[index].cpu().clone(),
            "return": self._return[index].tolist(),
            "length": self._length[index].tolist(),
            "reward_scale": self.scales[index].state() if self.scales else None,
        }

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Continue one Session from what `state` returned, after its streams were restored."""
        self.envs.restore(index, state["environments"])
        self._observation[index] = state["observation"].numpy()
        self._done_before[index], self._return[index] = state["done"], state["return"]
        self._length[index] = state["length"]
        self._carry[index] = state["carry"].to(self._carry.device)
        if self.scales:
            self.scales[index].restore(state["reward_scale"])


def _sum_in_order(start: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Add values [T, ...] to `start` one after another, because the last bits of a sum depend on the order."""
    result: np.ndarray = np.add.accumulate(np.concatenate([start[None], values]))[-1]
    return result
