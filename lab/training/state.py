"""What a stack holds, and how checkpoints bring it back."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch

from lab.env.vector import Environments, Spaces, detect_restore_method
from lab.run import checkpoint, tensor_files
from lab.run.directory import RunDir
from lab.spec import Spec
from lab.training.agent import Agent, prepare_device
from lab.training.collect import Collector
from lab.training.interval import Interval
from lab.training.metrics import Averages
from lab.training.record import Record


class StackState:
    """Agents, environments and progress of Sessions that differ only in their seed, or in numbers with a decimal point.

    `restore_method` is how checkpoints bring environments back.
    """

    def __init__(self, specs: list[Spec], directories: list[RunDir], spaces: Spaces) -> None:
        self.spec, self.specs, self.directories = specs[0], specs, directories
        self.device = prepare_device(self.spec.device, self.spec.threads)
        self.agent = Agent(specs, spaces, self.device)
        self.agent.algorithm.allocate(self.spec.env.num_envs)
        replay = self.agent.algorithm.replay
        if replay and replay.device != replay.target:
            self.agent.algorithm.compiler = None  # compiled functions are for tensors of one device
        self.restore_method = detect_restore_method(self.spec.env)
        self.envs = [
            Environments(spec.env, spec.env.num_envs, streams.environments, self.restore_method)
            for spec, streams in zip(specs, self.agent.streams, strict=True)
        ]
        self.collector = Collector(self.agent, self.envs)
        self.optimizer_steps = torch.zeros(len(specs), dtype=torch.int64)
        self.averages = Averages()
        self.unfinished_interval: Interval | None = None  # learned from, but not yet evaluated, logged and saved
        self.saved_time = 0.0
        self.records: list[Record] = []

    @property
    def frame(self) -> int:
        """Frames that each Session has done."""
        return self.collector.frame

    def interval_from(self, frame: int) -> Interval:
        """Return the horizon that begins at a frame."""
        after = frame + self.agent.algorithm.horizon * self.spec.env.num_envs
        return Interval(frame, after, self.spec.planned_frames(frame), self.spec.frames)

    def renew_environments(self) -> None:
        """Make all environments again that checkpoints restore by a reset."""
        for s in self.collector.alive[:] if self.restore_method == "reset" else ():
            self.collector.renew_environments(s)

    def agent_state(self, s: int) -> dict[str, Any]:
        """Return one Session's agent and progress as a checkpoint."""
        return {"frame": self.frame, "optimizer_steps": int(self.optimizer_steps[s]), **self.agent.state(s)}

    def write_best(self, s: int) -> None:
        """Write one Session's best checkpoint, with the statistics of rewards for a Session that starts from it."""
        rewards = {"rewards": self.collector.scales[s].moments.state()} if self.collector.scales else {}
        tensor_files.write(self.directories[s].checkpoint("best"), self.agent_state(s) | rewards)

    def save(self, sessions: list[int]) -> None:
        """Write checkpoints that Sessions can be resumed from."""
        replay, interval = self.agent.algorithm.replay, self.unfinished_interval
        for s in sessions:
            folder = self.directories[s].replay
            state = self.agent_state(s) | {
                "unfinished_interval": interval.before if interval else None,
                "collector": self.collector.state(s),
                "averages": self.averages.state(s),
                "replay": replay.save(s, folder, tensor_files.write) if replay else None,
                "record": self.records[s].sync(),
            }
            checkpoint.write_generation(self.directories[s], state)
            if replay:
                replay.remove_unused_files(s, folder)
        self.saved_time = perf_counter()

    def initialize(self) -> None:
        """Give the Sessions the weights that `init_from` names; raise LabError if these do not fit."""
        for s, spec in enumerate(self.specs):
            if spec.init_from:
                rewards = self.agent.initialize(s, spec)
                if self.collector.scales and rewards:
                    self.collector.scales[s].moments.restore(rewards)

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Restore all Sessions from checkpoints at the same frame, or give them the weights that they start from.

        Raises:
            LabError: a checkpoint, or the weights, do not fit.
        """
        if not states:
            self.initialize()
            return
        for s, state in enumerate(states):
            self.agent.restore(s, state)
        for s, state in enumerate(states):
            self.optimizer_steps[s] = state["optimizer_steps"]
            self.collector.restore(s, state["collector"])
            if self.agent.algorithm.replay:
                self.agent.algorithm.replay.restore(s, state["replay"], self.directories[s].replay, tensor_files.read)
        self.collector.frame = states[0]["frame"]
        self.averages.restore([state["averages"] for state in states], self.device)
        before = states[0]["unfinished_interval"]
        if before is not None:
            self.unfinished_interval = self.interval_from(before)
        elif self.frame < self.spec.frames and self.interval_from(self.frame - self.interval_from(0).after).ends_plan:
            self.renew_environments()  # as it was extended from here
