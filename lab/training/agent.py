"""The agents of a stack: an algorithm with its networks, the normalization of observations, and the device."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from lab.algo.algorithm import stack
from lab.common.rows import Row
from lab.common.streams import Streams
from lab.common.transfer import upload
from lab.env.normalize import RunningMoments
from lab.env.vector import Spaces
from lab.errors import LabError
from lab.memory.rollout import Statistics
from lab.run.parent import read_parent, require_parent
from lab.spec import Spec
from lab.training.lockstep import shared_settings


class Agent:
    """The agents of S Sessions.

    Attributes:
        algorithm: the algorithm, built for the stack.
        streams: each Session's random streams.
        moments: each Session's running moments of observations; empty if they are not normalized.
        statistics: of observations, to normalize them.
        device: of the networks.
        observations: one environment's observations, as the networks take them.
        spaces: the environment's observations and actions, as texts.
    """

    def __init__(self, specs: list[Spec], spaces: Spaces, device: torch.device) -> None:
        first = specs[0]
        if len(specs) > 1 and first.threads > 1:
            raise LabError(
                f"threads={first.threads} is not allowed for a stack of {len(specs)} Sessions: with several threads the"
                " last bits of a result depend on how many Sessions share them. Use threads=1, or one seed."
            )
        for spec in specs[1:]:
            ours, theirs = shared_settings(first), shared_settings(spec)
            for key in dict.fromkeys((*ours, *theirs)):
                one, other = ours.get(key), theirs.get(key)
                if one != other:
                    raise LabError(f"{key} differs between Sessions of one stack: {one} and {other}.")
        self.spec, self.device = first, device
        self.observations = spaces.observation
        self.spaces = {"observations": str(spaces.original), "actions": str(spaces.action)}
        self.streams = [Streams.spawn(spec.seed) for spec in specs]
        self.algorithm = stack([spec.algo for spec in specs], device, "algo")
        self.algorithm.build(spaces, self.algorithm.normalized_net(first.net), self.streams, device)
        if first.compile is True:
            from lab.net.compiled import Compiler

            self.algorithm.compiler = Compiler(self.algorithm, len(specs), device)
        if first.mode == "dev":
            self.algorithm.check_steps()
        self.moments: list[RunningMoments] = []
        self.statistics = Statistics(first.env.normalize_clip)
        if first.env.normalize_observations:
            row = self.observations
            self._normalized: Any = row.normalized if isinstance(row, Row) else slice(None)
            size = len(row.normalized) if isinstance(row, Row) else math.prod(row.shape)
            self.moments = [RunningMoments(size) for _ in specs]
            self._update_statistics()

    def normalize(self, raw: torch.Tensor) -> torch.Tensor:
        """Return observations [S, E, ...] normalized for the networks, on their device."""
        return self.statistics.normalize_observations(upload(raw, self.device))

    def update_moments(self, raw: np.ndarray, valid: np.ndarray) -> None:
        """Update the normalization with the valid observations [S, T, E, ...] of a horizon."""
        if self.moments:
            for moments, observations, mask in zip(self.moments, raw, valid, strict=True):
                flat = observations.reshape(*mask.shape, math.prod(self.observations.shape))
                moments.update(flat[mask][:, self._normalized])
            self._update_statistics()

    def _update_statistics(self) -> None:
        shape, clip = (len(self.moments), 1, *self.observations.shape), self.spec.env.normalize_clip

        def column(rows: list[np.ndarray], others: float) -> torch.Tensor:
            stacked = np.full((len(rows), math.prod(shape[1:])), others, np.float32)
            stacked[:, self._normalized] = rows
            return upload(stacked, self.device).view(shape)

        mean = column([moments.mean for moments in self.moments], 0.0)
        deviation = column([moments.deviation for moments in self.moments], 1.0)
        bound = None
        if isinstance(self.observations, Row):
            bound = column([np.full(len(self._normalized), clip) for _ in self.moments], math.inf)
        self.statistics = Statistics(clip, mean, deviation, bound=bound)

    def state(self, index: int) -> dict[str, Any]:
        """Return the state of one Session's agent and its random streams, as tensors and plain data."""
        return {
            **self.algorithm.state(index),
            "streams": self.streams[index].state(),
            "observations": self.moments[index].state() if self.moments else None,
            "spaces": dict(self.spaces),
        }

    def initialize(self, index: int, spec: Spec) -> dict[str, Any] | None:
        """Give one Session the weights and the statistics of observations that its spec names in `init_from`.

        Returns:
            The statistics of rewards that are there.

        Raises:
            LabError: the file was changed, or its agent does not fit the Session.
        """
        assert spec.init_from
        file = Path(require_parent(asdict(spec.init_from))["file"])
        state = read_parent(file)
        own = self.algorithm.weights(index)
        weights = {name: value for name, value in state["parameters"].items() if not is_random_stream(name)}
        try:
            problem = self._find_misfit(
                state, {name: value for name, value in own.items() if not is_random_stream(name)}
            )
            for network in self.algorithm.networks if not problem else ():
                network.restore(index, own | weights)
            if self.moments and not problem:
                self.moments[index].restore(state["observations"])
                self._update_statistics()
            collector = state.get("collector") or {}
            rewards = state.get("rewards") or (collector.get("reward_scale") or {}).get("moments")
        except Exception as error:  # of any type, as a checkpoint may hold anything
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise LabError(f"init_from.file={file} cannot be used ({text}).") from error
        if problem:
            raise LabError(f"The weights of init_from.file={file} do not fit: {problem}")
        return rewards

    def _find_misfit(self, state: dict[str, Any], own: dict[str, torch.Tensor]) -> str | None:
        """Say in what a checkpoint of another Session differs from one that could be started from; None if it fits."""
        for kind, saved in (state.get("spaces") or {}).items():
            if saved != self.spaces.get(kind):
                return f"its {kind} are {saved}, and those of env.id={self.spec.env.id} are {self.spaces.get(kind)}."
        key, normalized = "env.normalize_observations", state.get("observations") is not None
        if normalized != bool(self.moments):
            return f"it was trained with {key}={str(normalized).lower()}, and here it is {str(not normalized).lower()}."
        change = _find_change(state["parameters"], own)
        allowed = "They fit the same network (net) of the same algorithm, or of one that has the same networks."
        return f"{change}. {allowed}" if change else None

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Restore one Session's agent, or raise LabError if `state` is of other spaces or parameters."""
        name = f"the checkpoint at frame {state['frame']:,}" if "frame" in state else "the checkpoint"
        for kind, saved in state.get("spaces", {}).items():
            if saved != self.spaces[kind]:
                now = f"env.id={self.spec.env.id} has {kind} {self.spaces[kind]} now"
                raise LabError(f"{now}, and {name} was written with {saved}.")
        change = _find_change(state["parameters"], self.algorithm.state(index)["parameters"])
        if change:
            raise LabError(f"The agent differs from that of {name}: {change}. Did its code change?")
        try:
            self.algorithm.restore(index, state)
            self.streams[index].restore(state["streams"])
            if self.moments:
                self.moments[index].restore(state["observations"])
                self._update_statistics()
        except Exception as error:  # of any type, if the optimizer or a schedule changed
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise LabError(f"The agent differs from that of {name} ({text}). Did its code change?") from error


def is_random_stream(name: str) -> bool:
    """Return whether a buffer of a network is the state of a random stream, which each Session has of its own."""
    return name.rpartition(".")[2] == "draws"


def _find_change(before: dict[str, torch.Tensor], now: dict[str, torch.Tensor]) -> str | None:
    """Describe a parameter whose name or shape changed; None if there is none."""
    for name in dict.fromkeys((*before, *now)):
        shapes = [list(values[name].shape) if name in values else "absent" for values in (before, now)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} there and {shapes[1]} here"
    return None


def check_initialization(specs: Sequence[Spec], spaces: Sequence[Spaces]) -> None:
    """Raise LabError if the weights that `init_from` names do not fit one of some Sessions."""
    for spec, own in zip(specs, spaces, strict=True):
        if spec.init_from:
            Agent([replace(spec, compile=False)], own, torch.device("cpu")).initialize(0, spec)


def prepare_device(name: str, threads: int) -> torch.device:
    """Configure torch and numpy for training, and return the device as `find_device` does."""
    torch.set_num_threads(threads)
    # Numpy uses one thread everywhere, because the number of a machine's cores is not in the spec.
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    torch.set_flush_denormal(True)  # arithmetic with denormal numbers takes a hundred times longer
    with suppress(OSError, AttributeError):  # glibc alone has this: reuse freed memory, which is 8 % of SAC's speed
        libc = ctypes.CDLL(None)
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(parameter, 32 * 2**20)
    return find_device(name)


def find_device(name: str) -> torch.device:
    """Return the device that a spec names, or raise LabError if there is none; `auto` is a GPU if possible."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise LabError(
                f"device={name} is not there: this machine has {count} CUDA devices for torch. Try device=cpu."
            )
    return device
