"""The replay memory of finished episodes against lists of episodes."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from lab.memory.episodes import EpisodeReplay
from lab.memory.rollout import Raw, Rollout, Statistics
from lab.memory.spec import ReplaySpec
from lab.run import tensor_files
from tests.memory.test_replay import spaces

S, E, T = 2, 3, 4
GAMMA = torch.tensor([[0.9], [0.5]])
OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


def make(size: int, prioritized: bool = True, stack: int = S) -> EpisodeReplay:
    column = torch.ones(stack, 1)
    spec = ReplaySpec(size, "float32", False, prioritized, 0.6 * column, 0.4 * column, column, 1e-3 * column)
    return EpisodeReplay(spec, spaces(OBSERVATIONS), torch.zeros((), dtype=torch.int64), stack, E, T)


class Episodes:
    """Makes random steps with numbered observations, and keeps the returns that should be stored."""

    def __init__(self, ends: float = 0.25) -> None:
        self.rng, self.ends, self.steps = np.random.default_rng(1), ends, 0
        self.reset = np.zeros((S, E), bool)
        self.going: dict[tuple[int, int], list[tuple[int, float]]] = {(s, e): [] for s in range(S) for e in range(E)}
        self.returns: list[dict[int, float]] = [{} for _ in range(S)]

    def horizon(self) -> tuple[Rollout, torch.Tensor]:
        shape = (T, S, E)
        number = (np.arange(T + 1)[:, None, None] + self.steps) * S * E + np.arange(S * E).reshape(S, E)
        reward, value = (self.rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        ends = self.rng.choice(3, shape, p=[1 - self.ends, self.ends / 2, self.ends / 2])
        valid = np.ones(shape, np.float32)
        for t in range(T):
            ends[t][self.reset], valid[t][self.reset] = 0, 0
            for (s, e), steps in self.going.items():
                if not self.reset[s, e]:
                    steps.append((int(number[t, s, e]), float(reward[t, s, e])))
                if ends[t, s, e]:
                    total = float(value[t, s, e]) if ends[t, s, e] == 2 else 0.0
                    for name, each in reversed(steps):
                        total = each + float(GAMMA[s]) * total
                        self.returns[s][name] = total
                    steps.clear()
            self.reset = ends[t] > 0
        self.steps += T
        facts = (torch.from_numpy(x.astype(np.float32)) for x in (reward, ends == 1, ends == 2, valid))
        action = torch.from_numpy(number[:-1] % 5)
        observation = torch.from_numpy(number[..., None].astype(np.float32))
        return Rollout(observation, action, *facts, torch.zeros(S, E, 0)), torch.from_numpy(value)

    def kept(self, s: int, steps: int) -> dict[int, float]:
        """Return the returns of a Session's newest steps."""
        return {name: value for name, value in self.returns[s].items() if name // (S * E) >= self.steps - steps}


def contents(replay: EpisodeReplay, s: int) -> dict[int, float]:
    """Return the returns that can be drawn in a Session, by the number of the observation."""
    places = np.flatnonzero(replay._tree.leaves[s])
    batch = replay._gather(replay._observation[s : s + 1], torch.from_numpy(places[None]))[0, :, 0].long().tolist()
    return dict(zip(batch, replay._scalars[s].flatten(0, 1)[places, 0].tolist(), strict=True))


@pytest.mark.parametrize("prioritized", [True, False])
@pytest.mark.parametrize(("size", "ends"), [(60, 0.25), (1000, 0.25), (30, 0.05), (12, 0.02)])
def test_every_step_of_a_finished_episode_has_its_return(size: int, ends: float, prioritized: bool) -> None:
    replay, episodes = make(size, prioritized), Episodes(ends)
    for _ in range(40):
        replay.add_episodes(*episodes.horizon(), GAMMA)
        for s in range(S):
            expected = episodes.kept(s, replay.capacity)
            assert contents(replay, s) == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert replay.has_episodes[s] == bool(expected)
    assert all(len(returns) > 10 for returns in episodes.returns)


@pytest.mark.parametrize("prioritized", [True, False])
def test_steps_of_finished_episodes_are_drawn_with_their_returns(prioritized: bool) -> None:
    replay, episodes = make(60, prioritized), Episodes()
    rng = np.random.default_rng(0)
    for _ in range(9):
        replay.add_episodes(*episodes.horizon(), GAMMA)
    seen: list[set[int]] = [set(), set()]
    for _ in range(300):
        batch, position = replay.sample(rng.random((S, 16)), GAMMA, 0.0)
        assert torch.allclose(batch.weight.sum(-1), torch.ones(S)) or prioritized
        assert not batch.discount.any()
        for s in range(S):
            names = batch.observation[s, :, 0].long().tolist()
            known = episodes.kept(s, replay.capacity)
            assert batch.reward[s].tolist() == pytest.approx([known[name] for name in names], rel=1e-4, abs=1e-5)
            assert batch.action[s].tolist() == [name % 5 for name in names]
            seen[s] |= set(names)
        replay.update_priorities(position, torch.from_numpy(rng.random((S, 16), np.float32)))
    assert seen == [set(episodes.kept(s, replay.capacity)) for s in range(S)]


def test_returns_are_scaled_by_the_statistics_of_the_draw() -> None:
    replay, episodes = make(1000), Episodes()
    for horizon in range(9):
        rollout, value = episodes.horizon()
        then = Statistics(10.0, reward_deviation=torch.tensor([[0.1], [0.3]]) * (1 + horizon))
        rollout.raw = Raw(rollout.observation, rollout.reward, then)
        rollout.reward = torch.full_like(rollout.reward, float("nan"))
        replay.add_episodes(rollout, value / then.reward_deviation, GAMMA)
    for deviation in ([[2.0], [0.5]], [[1e-4], [7.0]]):
        now = Statistics(10.0, reward_deviation=torch.tensor(deviation))
        batch, _ = replay.sample(np.random.default_rng(0).random((S, 64)), GAMMA, 0.0, now)
        for s in range(S):
            known = episodes.kept(s, replay.capacity)
            expected = [known[name] / deviation[s][0] for name in batch.observation[s, :, 0].long().tolist()]
            assert batch.reward[s].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4 / deviation[s][0])


def test_steps_are_drawn_in_proportion_to_their_priority() -> None:
    replay, episodes = make(1000), Episodes(0.5)
    replay.add_episodes(*episodes.horizon(), GAMMA)
    everything, position = replay.sample((np.arange(600) / 600)[None].repeat(S, 0), GAMMA, 0.0)
    replay.update_priorities(position, everything.reward.clamp(min=0))
    batch, _ = replay.sample((np.arange(100_000) / 100_000)[None].repeat(S, 0), GAMMA, 0.0)
    for s in range(S):
        known = episodes.kept(s, replay.capacity)
        priority = {name: (max(value, 0) + 1e-3) ** 0.6 for name, value in known.items()}
        names, counts = np.unique(batch.observation[s, :, 0].numpy(), return_counts=True)
        for name, count in zip(names, counts, strict=True):
            assert count / 100_000 == pytest.approx(priority[int(name)] / sum(priority.values()), abs=1e-3)


def test_weights_are_zero_without_a_finished_episode() -> None:
    replay, episodes = make(100), Episodes(0.3)
    rollout, value = episodes.horizon()
    rollout.terminated[:, 1] = rollout.truncated[:, 1] = 0.0
    rollout.terminated[0, 0, 0] = 1.0
    replay.add_episodes(rollout, value, GAMMA)
    batch, _ = replay.sample(np.full((S, 8), 0.999), GAMMA, 0.0)
    assert batch.weight[0].sum() == 1.0
    assert not batch.weight[1].any()
    assert replay.has_episodes.tolist() == [True, False]


def test_cut_episodes_are_never_drawn() -> None:
    replay, episodes = make(1000), Episodes(0.0)
    replay.add_episodes(*episodes.horizon(), GAMMA)
    replay.cut_episodes(0)
    rollout, value = episodes.horizon()
    rollout.terminated[-1] = 1.0
    replay.add_episodes(rollout, value, GAMMA)
    assert len(contents(replay, 0)) == T * E
    assert len(contents(replay, 1)) == 2 * T * E


@pytest.mark.parametrize("size", [60, 1000])
def test_a_restored_memory_continues_equally(tmp_path: Path, size: int) -> None:
    replay, episodes = make(size), Episodes(0.1)
    rng = np.random.default_rng(0)

    def on(memory: EpisodeReplay, uniforms: np.ndarray) -> list[list[float]]:
        batch, position = memory.sample(uniforms, GAMMA, 0.5)
        memory.update_priorities(position, batch.reward.clamp(min=0))
        return [batch.observation.flatten().tolist(), batch.reward.flatten().tolist(), batch.weight.flatten().tolist()]

    states = []
    for _ in range(12):
        for _ in range(2):
            replay.add_episodes(*episodes.horizon(), GAMMA)
            on(replay, rng.random((S, 8)))
        states = [replay.save(s, tmp_path / str(s), tensor_files.write) for s in range(S)]
        for s in range(S):
            replay.remove_unused_files(s, tmp_path / str(s))
    copy = make(size)
    for s in range(S):
        copy.restore(s, states[s], tmp_path / str(s), tensor_files.read)
    for s in range(S):
        assert contents(copy, s) == contents(replay, s)
    for _ in range(20):
        rollout, value = episodes.horizon()
        for memory in (copy, replay):
            memory.add_episodes(rollout, value, GAMMA)
        uniforms = rng.random((S, 8))
        assert on(copy, uniforms) == on(replay, uniforms)
    assert all(len(list((tmp_path / str(s)).iterdir())) <= len(states[s]["segments"]) + 3 for s in range(S))


def test_the_size_of_a_checkpoint_does_not_grow(tmp_path: Path) -> None:
    replay, episodes = make(100_000), Episodes(0.25)
    sizes = []
    for number in range(60):
        replay.add_episodes(*episodes.horizon(), GAMMA)
        if number % 10 == 9:
            replay.save(0, tmp_path, tensor_files.write)
            sizes.append(max(path.stat().st_size for path in tmp_path.iterdir()))
    assert max(sizes) < 1.3 * sizes[0]


def test_a_stack_stores_what_its_sessions_store_alone() -> None:
    stacked, episodes = make(60), Episodes(0.2)
    alone = make(60, stack=1)
    rng = np.random.default_rng(0)
    for _ in range(30):
        rollout, value = episodes.horizon()
        stacked.add_episodes(rollout, value, GAMMA)
        parts = {name: getattr(rollout, name)[:, 1:] for name in ("observation", "action", "reward", "terminated",
                 "truncated", "valid")}  # fmt: skip
        alone.add_episodes(Rollout(**parts, carry=rollout.carry[1:]), value[:, 1:], GAMMA[1:])
        uniforms = rng.random((S, 8))
        ours, position = stacked.sample(uniforms, GAMMA, 0.5)
        theirs, own_position = alone.sample(uniforms[1:], GAMMA[1:], 0.5)
        for name in ("observation", "action", "reward", "weight"):
            assert torch.equal(getattr(ours, name)[1:], getattr(theirs, name))
        stacked.update_priorities(position, ours.reward.clamp(min=0))
        alone.update_priorities(own_position, theirs.reward.clamp(min=0))
