"""Collecting: stepping every Session's environments through a horizon, and counting their episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lab.env.guard import ProcessSettings
from lab.env.normalize import RewardScale
from lab.env.rng_isolation import RngWatch, explain_global_draws
from lab.env.vector import Environments
from lab.errors import explain_error
from lab.memory.rollout import Raw, Rollout
from lab.spec import EvalSpec
from lab.train.agent import Agent
from lab.train.episode import Episode


class Collector:
    """Steps the environments of a stack with its agents.

    Attributes:
        failures: by index of Sessions whose environment raised, the frame and why; they are stepped no more.
        episodes: of each Session, those that ended in the last horizon.
        frame: frames each Session has done.
    """

    def __init__(self, agent: Agent, envs: list[Environments]) -> None:
        self.agent, self.envs = agent, envs
        spec, algorithm = agent.spec, agent.algorithm
        self.horizon, self.num_envs, self.stack = algorithm.horizon, spec.env.num_envs, len(envs)
        self.settings = ProcessSettings(flush_denormal=True)  # of the process, as they are to stay
        self.failures: dict[int, tuple[int, str]] = {}
        self.alive = list(range(self.stack))
        self.frame = 0
        self.episodes: list[list[Episode]] = [[] for _ in envs]
        self.scales = [
            RewardScale(self.num_envs, float(gamma), spec.env.normalize_clip)
            for gamma in torch.as_tensor(algorithm.gamma).flatten()
            if spec.env.normalize_rewards
        ]
        steps = (self.horizon, self.stack, self.num_envs)
        seen = agent.observations
        self._raw = np.zeros((self.horizon + 1, *steps[1:], *seen.shape), seen.dtype)
        self._carry = torch.zeros(*steps[1:], algorithm.carry_size, device=agent.device)
        for s, env in enumerate(envs):
            try:
                self._raw[-1, s] = env.reset()
            except Exception as error:
                self.fail(s, explain_error(error))
        self._exposed = {name for env in envs for name in env.shared_rngs}
        self._reward = np.zeros(steps)
        self._terminated, self._truncated = np.zeros(steps, bool), np.zeros(steps, bool)
        self._done_before = np.zeros(steps[1:], bool)
        self._return = np.zeros(steps[1:])
        self._length = np.zeros(steps[1:], np.int64)

    def collect(self, beat: Callable[[], None] = lambda: None) -> Rollout:
        """Take a horizon of steps in every Session that has not failed, and call `beat` after each step."""
        agent, algorithm = self.agent, self.agent.algorithm
        progress = self.frame / agent.spec.frames
        noise = algorithm.noise(self.horizon, self.num_envs, agent.streams, progress).to(agent.device)
        self._raw[0] = self._raw[-1]
        raw = torch.from_numpy(self._raw)
        seen, actions, carry = [], [], self._carry
        watch = RngWatch(self._exposed)
        for t in range(self.horizon):
            seen.append(agent.observe(raw[t]))
            action, self._carry = algorithm.act(seen[t], noise[t], self._carry)
            actions.append(action)
            self._step(t, action.cpu().numpy())
            if algorithm.carry_size:  # an environment that is reset at this step begins an episode after it
                reset = self._terminated[t - 1] | self._truncated[t - 1] if t else self._done_before
                self._carry = self._carry.masked_fill(torch.from_numpy(reset).to(agent.device).unsqueeze(-1), 0.0)
            beat()
        self.settings.restore()
        seen.append(agent.observe(raw[self.horizon]))
        self._fail_if_shared(watch)

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
            carry=carry,
            raw=self._take_raw(),
        )

    def _take_raw(self) -> Raw | None:
        """Return the horizon as environments gave it, and what it is normalized by from here on."""
        agent = self.agent
        if not (self.scales or agent.moments):
            return None
        statistics = agent.statistics
        if self.scales:
            deviations = np.stack([scale.moments.deviation for scale in self.scales])
            column = torch.tensor(deviations, dtype=torch.float32, device=agent.device)
            statistics = replace(statistics, reward_deviation=column)
        observation, reward = torch.tensor(self._raw), torch.tensor(self._reward, dtype=torch.float32)
        return Raw(observation.to(agent.device), reward.to(agent.device), statistics)

    def _step(self, t: int, actions: np.ndarray) -> None:
        for s in self.alive[:]:
            try:
                raw, reward, terminated, truncated = self.envs[s].step(actions[s])
            except Exception as error:
                self.fail(s, explain_error(error), self.frame + (t + 1) * self.num_envs)
                continue
            finally:
                self.settings.restore_step_settings()
            self._raw[t + 1, s] = raw
            self._reward[t, s] = reward
            self._terminated[t, s] = terminated
            self._truncated[t, s] = truncated

    def _fail_if_shared(self, watch: RngWatch) -> None:
        """Fail the Sessions whose environments drew from what other Sessions draw from, too."""
        changed = watch.changed()
        for s in self.alive[:] if changed else ():
            reason = explain_global_draws(f"env.id={self.agent.spec.env.id}", changed)
            self.fail(s, reason, self.frame + self.horizon * self.num_envs)

    def fail(self, index: int, reason: str, frame: int | None = None) -> None:
        """Leave a Session out from here on, for a reason (a sentence or a traceback), at a frame if not at this one."""
        self.failures[index] = self.frame if frame is None else frame, reason
        self.leave_out(index)

    def leave_out(self, index: int) -> None:
        """Step a Session no more, and let it learn no more; the others go on as they would have."""
        self.alive.remove(index)
        self.agent.algorithm.active[index] = 0.0

    def begin_episodes(self, index: int) -> None:
        """Make a Session's environments anew; the episodes that were going on are left uncounted."""
        self._done_before[index], self._return[index], self._length[index] = False, 0.0, 0
        self._carry[index] = 0.0
        if self.agent.algorithm.replay:
            self.agent.algorithm.replay.cut_episodes(index)
        if self.scales:
            self.scales[index].discounted[:] = 0.0
        try:
            self._raw[-1, index] = self.envs[index].renew()
        except Exception as error:
            self.fail(index, explain_error(error))

    def state(self, index: int) -> dict[str, Any]:
        """Return where one Session's environments and their episodes are, as tensors and plain data."""
        return {
            "environments": self.envs[index].state(),
            "observation": torch.from_numpy(self._raw[-1, index].copy()),
            "done": self._done_before[index].tolist(),
            "carry": self._carry[index].cpu().clone(),
            "return": self._return[index].tolist(),
            "length": self._length[index].tolist(),
            "reward_scale": self.scales[index].state() if self.scales else None,
        }

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Go on in one Session from what `state` returned, after its streams were restored."""
        self.envs[index].restore(state["environments"])
        self._raw[-1, index] = state["observation"].numpy()
        self._done_before[index], self._return[index] = state["done"], state["return"]
        self._length[index] = state["length"]
        self._carry[index] = state["carry"].to(self._carry.device)
        if self.scales:
            self.scales[index].restore(state["reward_scale"])

    def _count(self, valid: np.ndarray, done: np.ndarray) -> None:
        self.episodes = [[] for _ in self.envs]
        ending: list[bool] = np.any(done, axis=(1, 2)).tolist()
        for t in range(self.horizon):
            self.frame += self.num_envs
            self._return += self._reward[t]
            self._length += valid[t]
            for s, e in np.argwhere(done[t]) if ending[t] else ():
                if s in self.alive:
                    episode = Episode(self.frame, float(self._return[s, e]), int(self._length[s, e]))
                    self.episodes[s].append(episode)
                self._return[s, e] = 0.0
                self._length[s, e] = 0


class Evaluation:
    """Whole episodes with the deterministic policy, one in each of a Session's evaluation environments.

    Attributes:
        going: by index of the Session, which of its episodes still go on; Sessions that are done are left out.
        figures: returns and lengths [2, episodes] by index of the Session.
        failures: why those Sessions failed whose environment raised.
    """

    def __init__(self, agent: Agent, envs: dict[int, Environments], spec: EvalSpec) -> None:
        """Reset the environments, which are given by index of the Session."""
        self.agent, self.envs, self.spec = agent, envs, spec
        self.settings = ProcessSettings(flush_denormal=True)
        self.going: dict[int, np.ndarray] = {}
        self.figures: dict[int, np.ndarray] = {}
        self.failures: dict[int, str] = {}
        self._steps = 0
        seen = agent.observations
        self._raw = np.zeros((len(agent.streams), spec.episodes, *seen.shape), seen.dtype)
        self._carry = torch.zeros(*self._raw.shape[:2], agent.algorithm.carry_size, device=agent.device)
        self._watch = RngWatch({name for env in envs.values() for name in env.shared_rngs})
        for s, env in envs.items():
            try:
                self._raw[s] = env.reset()
            except Exception as error:
                self.failures[s] = explain_error(error)
                continue
            self.figures[s] = np.zeros((2, spec.episodes))
            self.going[s] = np.ones(spec.episodes, bool)

    def step(self) -> None:
        """Take a step in every environment of the Sessions that still have an episode going."""
        agent = self.agent
        seen = agent.observe(torch.from_numpy(self._raw))
        chosen, self._carry = agent.algorithm.act(seen, None, self._carry)
        action = chosen.cpu().numpy()
        self._steps += 1
        for s, going in list(self.going.items()):
            try:
                self._raw[s], reward, terminated, truncated = self.envs[s].step(action[s])
            except Exception as error:
                self.failures[s] = explain_error(error)
                del self.going[s], self.figures[s]
                continue
            finally:
                self.settings.restore_step_settings()
            self.figures[s] += np.stack([np.where(going, reward, 0.0), going])
            going &= ~(terminated | truncated)
            if not going.any() or self._steps >= self.spec.max_steps:
                del self.going[s]
        if not self.going:
            self.settings.restore()
            self._fail_if_shared()

    def _fail_if_shared(self) -> None:
        changed = self._watch.changed()
        if changed:
            reason = explain_global_draws(f"env.id={self.agent.spec.env.id}", changed)
            self.failures |= dict.fromkeys(self.figures, reason)
            self.figures.clear()
