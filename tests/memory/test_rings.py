"""Stacked frames in memories that store each frame once, against memories of whole stacks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.algo.algorithm import stack
from lab.memory.episodes import EpisodeReplay
from lab.memory.recent import RecentSteps
from lab.memory.replay import Replay
from lab.memory.rollout import Raw, Rollout, Statistics
from lab.run import tensor_files
from tests.memory.test_replay import GAMMA, E, S, T, World, spaces, spec

ACTION = torch.zeros((), dtype=torch.int64)
FRAME = (2, 3)  # a row of numbers, or of an image


class Frames:
    """Random steps whose observations are stacks of frames, as wrappers make them."""

    def __init__(self, frames: int, zero_padding: bool, dtype: type) -> None:
        self.world, self.rng = World(), np.random.default_rng(3)
        self.zero_padding = zero_padding
        self.box = Box(0, 255, (2 * frames, *FRAME[1:], 1)[: 3 if dtype is np.uint8 else 2], dtype)
        self.stack = np.zeros((S, E, frames, self.box.shape[0] // frames, *self.box.shape[1:]), dtype)
        self.begins = np.ones((S, E), bool)

    def see(self) -> np.ndarray:
        """Return the next observations."""
        frame = self.rng.integers(0, 256, self.stack[:, :, 0].shape).astype(self.stack.dtype)
        self.stack = np.concatenate([self.stack[:, :, 1:], frame[:, :, None]], 2)
        for s, e in np.argwhere(self.begins):
            self.stack[s, e, :-1] = 0 if self.zero_padding else frame[s, e]
        return self.stack.reshape(S, E, *self.box.shape)

    def rollout(self) -> Rollout:
        rollout = self.world.rollout()
        observations = [self.see() if self.begins.all() else self.last]
        for t in range(T):
            self.begins = rollout.valid[t].numpy() == 0
            observations.append(self.see())
        self.last = observations[-1].copy()
        self.begins = np.zeros((S, E), bool)
        rollout.observation = torch.from_numpy(np.stack(observations))
        return rollout

    def renew(self, session: int) -> None:
        """Begin new episodes in one Session."""
        before = self.stack.copy()
        self.begins[session] = True
        self.see()
        self.stack[1 - session] = before[1 - session]
        self.last = self.stack.reshape(S, E, *self.box.shape).copy()
        self.begins[:] = False
        self.world.ended[session] = False


class Alike:
    """The same memory of whole stacks, and of frames."""

    def __init__(self, kind: type[Replay], frames: int, zero_padding: bool, dtype: type, size: int, n: int) -> None:
        self.world = Frames(frames, zero_padding, dtype)
        self.memories: list[Replay] = []
        for known in (1, frames):
            observations = spaces(self.world.box, known, zero_padding)
            if kind is RecentSteps:
                memory: Replay = RecentSteps(size, observations, ACTION, S, E, T, 0)
            else:
                column = stack([spec(size=size)] * S, torch.device("cpu"), "algo.memory")
                more = [n] if kind is Replay else []
                memory = kind(column, observations, ACTION, S, E, T, *more)
            self.memories.append(memory)

    def add(self, horizons: int) -> None:
        for _ in range(horizons):
            rollout = self.world.rollout()
            for memory in self.memories:
                if isinstance(memory, EpisodeReplay):
                    memory.add_episodes(rollout, torch.zeros(T, S, E), GAMMA)
                else:
                    memory.add(rollout)

    def renew(self, session: int) -> None:
        self.world.renew(session)
        for memory in self.memories:
            memory.cut_episodes(session)

    def resume(self, root: str) -> None:
        """Empty both memories, and restore them from files."""
        for index, memory in enumerate(self.memories):
            folders = [Path(root) / f"{index}-{s}" for s in range(S)]
            states = [memory.save(s, folder, tensor_files.write) for s, folder in enumerate(folders)]
            for tensor in (memory._observation, memory._scalars, memory._action):
                tensor.zero_()
            for s, folder in enumerate(folders):
                memory.restore(s, states[s], folder, tensor_files.read)
                memory.remove_unused_files(s, folder)

    def check(self) -> None:
        whole, frames = self.memories
        if isinstance(whole, RecentSteps):
            assert isinstance(frames, RecentSteps)
            for index in range(whole.blocks):
                one, other = whole.read_block(index, None), frames.read_block(index, None)
                for name in ("observation", "action", "reward", "valid"):
                    assert torch.equal(getattr(one, name), getattr(other, name)), name
            return
        if isinstance(whole, EpisodeReplay) and not whole.has_episodes.all():
            return
        uniforms = np.random.default_rng(whole.count).random((S, 40))
        batches = [memory.sample(uniforms, GAMMA, 0.0)[0] for memory in self.memories]
        for name, value in vars(batches[0]).items():
            if isinstance(whole, EpisodeReplay) and name == "next_observation":
                continue  # of no use there
            assert torch.equal(value, getattr(batches[1], name)), name


@given(
    kind=st.sampled_from([Replay, EpisodeReplay, RecentSteps]),
    frames=st.integers(2, 4),
    zero_padding=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.float32]),
    size=st.sampled_from([39, 51, 87]),  # rings of the same length with and without older frames, as positions count
    n=st.integers(1, 3),
    events=st.lists(st.sampled_from([1, 2, 7, "renew", "resume"]), min_size=1, max_size=5),
)
@settings(max_examples=20, deadline=None)
def test_frames_are_as_whole_stacks(
    kind: type[Replay],
    frames: int,
    zero_padding: bool,
    dtype: type,
    size: int,
    n: int,
    events: list[int | str],
) -> None:
    alike = Alike(kind, frames, zero_padding, dtype, size, n)
    alike.add(3)
    with tempfile.TemporaryDirectory() as folder:
        for event in events:
            if event == "renew":
                alike.renew(0)
                alike.add(1)
            elif event == "resume":
                alike.resume(folder)
            else:
                alike.add(int(event))
            alike.check()


def test_frames_are_stored_once_and_counted_once() -> None:
    box = Box(0, 255, (4, 84, 84), np.uint8)
    whole, frames = (spec(size=1_000_000).estimate_bytes(spaces(box, known)) for known in (1, 4))
    assert whole == 1_000_000 * (4 * 84 * 84 + 64)
    assert frames == 1_000_000 * (84 * 84 + 64)
    memory = Replay(spec(size=60), spaces(box, 4), ACTION, S, E, T)
    assert memory._observation.shape == (S, memory.ring_length, E, 1, 84, 84)
    assert memory.size_bytes == S * memory.ring_length * E * (84 * 84 + 8 + 16)


def test_frames_are_put_together_before_they_are_normalized() -> None:
    alike = Alike(Replay, 3, True, np.uint8, 60, 1)
    shape = (S, 1, *alike.world.box.shape)
    now = Statistics(10.0, torch.rand(shape) * 100, torch.rand(shape) * 50 + 1)
    for _ in range(5):
        rollout = alike.world.rollout()
        rollout.raw = Raw(rollout.observation, rollout.reward, now)
        for memory in alike.memories:
            memory.add(rollout)
    uniforms = np.random.default_rng(1).random((S, 20))
    one, other = (memory.sample(uniforms, GAMMA, 0.0, now)[0] for memory in alike.memories)
    assert torch.equal(one.observation, other.observation)
    assert one.observation.min() < 0, "zeros before an episode are normalized too"


@pytest.mark.parametrize("kind", [Replay, RecentSteps])
def test_the_ring_holds_the_frames_before_its_oldest_step(kind: type[Replay]) -> None:
    alike = Alike(kind, 5, False, np.uint8, 48, 1)
    alike.add(70)
    alike.check()
