"""Evaluates the agents of a stack on whole episodes."""

from __future__ import annotations

import numpy as np
import torch

from lab.common.transfer import upload
from lab.env.rng_isolation import RngWatch, explain_global_draws
from lab.env.spec import EnvSpec
from lab.env.stacked import StackedEnvironments
from lab.env.vector import Environments
from lab.env.vector_envs import Steps
from lab.errors import explain_error
from lab.spec import EvalSpec
from lab.training.agent import Agent


class Evaluation:
    """One episode with the deterministic policy in each of a Session's evaluation environments."""

    def __init__(self, agent: Agent, specs: dict[int, EnvSpec], spec: EvalSpec) -> None:
        """Make and reset the environments, whose specs are given by index of the Session."""
        self.agent, self.spec = agent, spec
        self._streams = [streams.evaluation for streams in agent.streams]
        self._stream_states = [stream.bit_generator.state for stream in self._streams]
        self.running: dict[int, np.ndarray] = {}  # by index of a Session that is not done, 1 for running episodes
        # Returns, lengths and env.metrics [2 + M, episodes]; the metrics of an episode that is cut are NaN.
        self.episodes: dict[int, np.ndarray] = {}
        self.failures: dict[int, str] = {}  # errors
        self._steps = 0
        self._envs: dict[int, Environments] = {}
        for s, env_spec in specs.items():
            try:
                self._envs[s] = Environments(env_spec, spec.episodes, self._streams[s])
            except Exception as error:
                self.failures[s] = explain_error(error)
        space = agent.observations
        self._raw = np.zeros((len(agent.streams), spec.episodes, *space.shape), space.dtype)
        self._carry = torch.zeros(*self._raw.shape[:2], agent.algorithm.carry_size, device=agent.device)
        self._stacked = StackedEnvironments(self._envs)
        self._results = Steps.around(self._raw, self._raw.shape[:2], len(agent.spec.env.reported))
        self._watch = RngWatch(self._stacked.shared_rngs)
        for s in self._envs:
            try:
                self._raw[s] = self._stacked.reset(s)
            except Exception as error:
                self.failures[s] = explain_error(error)
                continue
            self.episodes[s] = np.zeros((2 + len(agent.spec.env.metrics), spec.episodes))
            self.episodes[s][2:] = np.nan
            self.running[s] = np.ones(spec.episodes, bool)

    def step(self) -> None:
        """Take a step in every environment of the Sessions that still have a running episode."""
        agent = self.agent
        actions, self._carry = agent.algorithm.act(agent.normalize(torch.from_numpy(self._raw)), None, self._carry)
        action = actions.cpu().numpy()
        self._steps += 1
        valid = ~(self._results.terminated | self._results.truncated)  # a wrapper may end what is no episode's end
        failures = self._stacked.step(list(self.running), action, self._results)
        for s in failures:
            del self.running[s], self.episodes[s]
        self.failures |= failures
        if agent.algorithm.carry_size and agent.spec.env.reported:
            self._carry = self._carry.masked_fill(~upload(valid, agent.device).unsqueeze(-1), 0.0)
        score, over = self._results.score, self._results.over
        for s, running in list(self.running.items()):
            self.episodes[s][:2] += np.stack([np.where(running, score[s], 0.0), running & valid[s]])
            ends = running & over[s]
            self.episodes[s][2:, ends] = self._results.reported[s, ends, 2:].T
            running &= ~over[s]
            if not running.any() or self._steps >= self.spec.max_steps:
                del self.running[s]
        if not self.running:
            self._stacked.settings.restore()
            changed = self._watch.changed()
            if changed:
                reason = explain_global_draws(f"env.id={agent.spec.env.id}", changed)
                self.failures |= dict.fromkeys(self.episodes, reason)
                self.episodes.clear()

    def close(self) -> None:
        """Close the environments; if episodes still run, restore the random streams for the next attempt."""
        for env in self._envs.values():
            env.close()
        if self.running:
            for stream, state in zip(self._streams, self._stream_states, strict=True):
                stream.bit_generator.state = state
