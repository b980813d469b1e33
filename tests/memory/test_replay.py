"""The replay memory against a list of all steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from lab.algo.algorithm import stack
from lab.common.text import format_bytes
from lab.env.spaces import Spaces
from lab.env.vector import probe
from lab.errors import LabError
from lab.memory.replay import Replay
from lab.memory.rollout import Raw, Rollout, Statistics
from lab.memory.spec import ReplaySpec
from lab.run import tensor_files
from lab.run.directory import RunDir
from lab.training.stack import Stack
from tests.helpers import specs

S, E, T = 2, 3, 4
GAMMA = 0.9


def spec(**changed: Any) -> ReplaySpec:
    usual = {"size": 60, "dtype": "float32", "combined": False, "prioritized": False}
    return ReplaySpec(**(usual | {"alpha": 0.6, "beta": 0.4, "beta_final": 1.0, "eps": 1e-3} | changed))


def spaces(box: Box, frame_stack: int = 1, zero_padding: bool = False) -> Spaces:
    return Spaces(box, Discrete(2), box, frame_stack=frame_stack, zero_padding=zero_padding)


def memory(n: int = 1, **changed: Any) -> Replay:
    stacked = stack([spec(**changed)] * S, torch.device("cpu"), "algo.memory")
    return Replay(stacked, spaces(Box(0, 255, (1,), np.float32)), torch.zeros((), dtype=torch.int64), S, E, T, n)


class World:
    """Makes random steps, numbered by environment, and keeps them all."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.steps: list[dict[str, np.ndarray]] = []  # each [S, E]
        self.ended = np.zeros((S, E), bool)

    def rollout(self) -> Rollout:
        for _ in range(T):
            valid = ~self.ended
            end = self.rng.choice(3, size=(S, E), p=[0.7, 0.15, 0.15]) * valid
            self.steps.append(
                {
                    "reward": self.rng.normal(size=(S, E)) * valid, "action": self.rng.integers(5, size=(S, E)),
                    "terminated": end == 1, "truncated": end == 2, "valid": valid,
                }
            )  # fmt: skip
            self.ended = end > 0
        now = self.steps[-T:]
        first = len(self.steps) - T
        number = torch.arange(first, first + T + 1).view(-1, 1, 1, 1).expand(T + 1, S, E, 1)
        of_environment = (torch.arange(S).view(S, 1) * E + torch.arange(E)).view(1, S, E, 1)
        columns = {name: torch.from_numpy(np.stack([step[name] for step in now])) for name in now[0]}
        return Rollout(
            observation=(number + 1000 * of_environment).float(),
            action=columns["action"],
            reward=columns["reward"].float(),
            terminated=columns["terminated"].float(),
            truncated=columns["truncated"].float(),
            valid=columns["valid"].float(),
            carry=torch.zeros(S, E, 0),
        )

    def transition(
        self, s: int, e: int, t: int, n: int, scale: Callable[[float], float] = float
    ) -> tuple[float, float, int]:
        """Return the reward, discount and next step of a transition of up to n steps, with scaled rewards."""
        total, factor = 0.0, 1.0
        for k in range(n):
            step = {name: value[s, e] for name, value in self.steps[t + k].items()}
            if not step["valid"]:
                return total, factor, t + k
            total += factor * scale(step["reward"])
            factor *= GAMMA
            if step["terminated"]:
                return total, 0.0, t + k + 1
            if step["truncated"]:
                return total, factor, t + k + 1
        return total, factor, t + n


def filled(n: int, horizons: int, **changed: Any) -> tuple[Replay, World]:
    replay, world = memory(n, **changed), World()
    for _ in range(horizons):
        replay.add(world.rollout())
    return replay, world


@pytest.mark.parametrize(("n", "horizons", "prioritized"), itertools.product([1, 3], [1, 3, 11], [False, True]))
def test_transitions_are_those_of_the_steps_that_were_added(n: int, horizons: int, prioritized: bool) -> None:
    replay, world = filled(n, horizons, prioritized=prioritized)
    uniforms = np.random.default_rng(1).random((S, 400))
    batch, _ = replay.sample(uniforms, torch.tensor([[GAMMA], [GAMMA]]), 0.5)
    newest = horizons * T - n
    oldest = max(horizons * T - 20, 0)  # 60 transitions of 3 environments
    seen = set()
    for s, b in itertools.product(range(S), range(400)):
        where = int(batch.observation[s, b, 0])
        (number, e), t = (where // 1000 // E, where // 1000 % E), where % 1000
        assert number == s
        assert oldest <= t <= newest
        valid = world.steps[t]["valid"][s, e]
        assert (batch.weight[s, b] > 0) == valid
        if valid:
            seen.add((s, e, t))
            reward, discount, after = world.transition(s, e, t, n)
            assert batch.reward[s, b] == pytest.approx(reward, abs=1e-6)
            assert batch.discount[s, b] == pytest.approx(discount, abs=1e-6)
            assert batch.action[s, b] == world.steps[t]["action"][s, e]
            assert batch.next_observation[s, b, 0] == after + 1000 * (s * E + e)
    valid = {
        (s, e, t)
        for s, e, t in itertools.product(range(S), range(E), range(oldest, newest + 1))
        if world.steps[t]["valid"][s, e]
    }
    assert len(seen) > 0.9 * len(valid), "almost all are drawn"
    if not prioritized:
        assert batch.weight.sum(1).tolist() == pytest.approx([1.0, 1.0])


def statistics(seed: int) -> Statistics:
    mean, deviation, scale = (
        torch.from_numpy(np.random.default_rng(seed).random((3, S, 1), np.float32)) + 0.2
    ).unbind()
    return Statistics(1.5, 1000 * mean.unsqueeze(-1), 1000 * deviation.unsqueeze(-1), scale)


@pytest.mark.parametrize(("n", "prioritized"), itertools.product([1, 3], [False, True]))
def test_transitions_are_normalized_by_the_statistics_of_the_draw(n: int, prioritized: bool) -> None:
    replay, world = memory(n, prioritized=prioritized), World()
    for horizon in range(3):
        rollout = world.rollout()
        then = statistics(horizon)
        rollout.raw = Raw(rollout.observation, rollout.reward, then)
        rollout.observation, rollout.reward = then.normalize_observations(rollout.observation), rollout.reward - 5
        replay.add(rollout)
    uniforms, gamma = np.random.default_rng(1).random((S, 300)), torch.full((S, 1), GAMMA)
    raw, _ = replay.sample(uniforms, gamma, 0.5)
    clipped = 0
    for now in (statistics(7), statistics(8)):
        batch, _ = replay.sample(uniforms, gamma, 0.5, now)
        for name in ("observation", "next_observation"):
            expected = (getattr(raw, name) - now.mean) / now.deviation
            assert torch.equal(getattr(batch, name), expected.clamp(-1.5, 1.5))
        for s, b in itertools.product(range(S), range(300)):
            where, deviation = int(raw.observation[s, b, 0]), float(now.reward_deviation[s])
            e, t = where // 1000 % E, where % 1000
            if world.steps[t]["valid"][s, e]:
                reward, discount, _ = world.transition(
                    s, e, t, n, lambda r, d=deviation: float(np.clip(r / d, -1.5, 1.5))
                )
                assert batch.reward[s, b] == pytest.approx(reward, abs=1e-5)
                assert batch.discount[s, b] == pytest.approx(discount, abs=1e-6)
                clipped += reward in (-1.5, 1.5)
    assert n > 1 or 20 < clipped < 550


def test_equal_rewards_are_normalized_equally_whenever_they_were_added(tmp_path: Path) -> None:
    overrides = ("algo=dqn", "env=acrobot", "~tuned", "algo.horizon=1", "env.num_envs=8", "env.normalize_rewards=true")
    spec = specs(*overrides, "algo.learning_starts=0")[0]
    made = Stack([spec], [RunDir(tmp_path)], probe(spec.env))
    replay, collector = made.agent.algorithm.replay, made.collector
    assert replay
    drawn = []
    for _ in range(60):
        rollout = collector.collect()
        replay.add(rollout)
        uniforms = np.arange(replay.num_available)[None] / replay.num_available + 1e-9
        batch, _ = replay.sample(uniforms, 0.99, 0.0, rollout.statistics)
        drawn.append(set(batch.reward[batch.weight > 0].tolist()))
    assert drawn[0] == {-10.0}, "the deviation of the first rewards, all of them -1, is nearly 0"
    assert all(len(values) == 1 for values in drawn)
    assert drawn[-1] == {np.float32(-1 / np.float32(collector.scales[0].moments.deviation[0]))}
    assert set(replay._scalars[0, : collector.horizon * 60, :, 0].flatten().tolist()) == {-1.0}


def test_images_are_stored_as_bytes_and_normalized_when_drawn() -> None:
    replay = Replay(spec(), spaces(Box(0, 255, (2, 2, 1), np.uint8)), torch.zeros((), dtype=torch.int64), S, E, T)
    rollout = World().rollout()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (T + 1, S, E, 2, 2, 1), np.uint8))
    now = Statistics(10.0, torch.full((S, 1, 2, 2, 1), 100.0), torch.full((S, 1, 2, 2, 1), 50.0))
    rollout.raw = Raw(image, rollout.reward, now)
    replay.add(rollout)
    uniforms = np.random.default_rng(1).random((S, 5))
    (raw, _), (batch, _) = replay.sample(uniforms, GAMMA, 0.0), replay.sample(uniforms, GAMMA, 0.0, now)
    assert raw.observation.dtype == torch.uint8
    assert torch.equal(batch.observation, (raw.observation.float() - 100) / 50)
    assert torch.equal(batch.reward, raw.reward)


def test_combined_minibatches_hold_the_newest_transition() -> None:
    for prioritized in (False, True):
        replay, _ = filled(1, 9, combined=True, prioritized=prioritized)
        for seed in range(5):
            batch, _ = replay.sample(np.random.default_rng(seed).random((S, 6)), GAMMA, 0.0)
            assert (batch.observation[:, -1, 0] % 1000).tolist() == [9 * T - 1] * S


def test_an_invalid_newest_transition_does_not_reduce_other_weights() -> None:
    replay, _ = filled(1, 9, combined=True, prioritized=True)
    newest = (replay.count - 1) % replay.ring_length
    assert replay._tree
    replay._tree.set(np.array([newest * E + np.arange(E)] * S), np.zeros((S, E)))
    weight = replay.sample(np.random.default_rng(0).random((S, 6)), GAMMA, 0.0)[0].weight.numpy()
    assert (weight[:, -1] == 0).all()
    assert (weight[:, :-1] > 0.01).all()


def test_draws_follow_priorities_and_weights_correct_for_them() -> None:
    replay, _ = filled(1, 3, prioritized=True, alpha=1.0, eps=1e-9)
    everything = np.arange(3 * T * E)
    errors = torch.zeros(S, len(everything))
    errors[:, ::2] = 2.0
    errors[:, 1::4] = 0.5
    replay.update_priorities(np.stack([everything] * S), errors)
    drawn, position = replay.sample(np.random.default_rng(0).random((S, 4000)), GAMMA, 1.0)
    assert replay._tree
    for s in range(S):
        expected = replay._tree.leaves[s, : len(everything)] / replay._tree.totals[s]
        counts = np.bincount(position[s], minlength=len(everything)) / 4000
        assert np.abs(counts - expected).max() < 0.01
        weight = drawn.weight[s].numpy() * 4000
        chance = expected[position[s]]
        assert weight * chance == pytest.approx(np.full(4000, (weight * chance)[0]), rel=1e-4), "beta is 1 at the end"
        assert weight.max() == pytest.approx(1.0)


def test_new_transitions_have_the_highest_priority_and_autoreset_steps_none() -> None:
    replay, world = filled(1, 1, prioritized=True)
    assert replay._tree
    assert sorted(set(replay._tree.leaves.ravel().tolist())) == [0.0, 1.0]
    position, _ = replay.draw(np.random.default_rng(0).random((S, 8)), 0.0)
    replay.update_priorities(position, torch.full((S, 8), 9.0))
    replay.add(world.rollout())
    valid = np.stack([step["valid"] for step in world.steps[-T:]], 1).reshape(S, -1)
    new = replay._tree.leaves[:, T * E : 2 * T * E]
    assert new == pytest.approx(valid * (9.0 + 1e-3) ** 0.6)


def test_the_last_step_of_cut_episodes_is_excluded() -> None:
    for n, prioritized in itertools.product((1, 3), (False, True)):
        replay, world = filled(n, 2, prioritized=prioritized)
        replay.cut_episodes(1)
        for name, value in (("valid", False), ("terminated", False), ("truncated", False)):
            world.steps[-1][name][1] = value
        replay.add(world.rollout())
        batch, _ = replay.sample(np.random.default_rng(0).random((S, 300)), GAMMA, 0.0)
        for b in range(300):
            where = int(batch.observation[1, b, 0])
            e, t = where // 1000 - E, where % 1000
            if batch.weight[1, b] > 0:
                assert t != 2 * T - 1
                reward, discount, after = world.transition(1, e, t, n)
                assert batch.reward[1, b] == pytest.approx(reward, abs=1e-6)
                assert batch.discount[1, b] == pytest.approx(discount, abs=1e-6)
                assert batch.next_observation[1, b, 0] % 1000 == after


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_memory_is_restored_from_its_files(tmp_path: Path, prioritized: bool) -> None:
    replay, world = memory(3, prioritized=prioritized), World()
    rng, states = np.random.default_rng(5), []
    for _horizon in range(17):
        replay.add(world.rollout())
        position, _ = replay.draw(rng.random((S, 8)), 0.3)
        replay.update_priorities(position, torch.from_numpy(rng.normal(size=(S, 8))))
        if rng.random() < 0.6:
            states.append(replay.save(1, tmp_path, tensor_files.write))
            replay.remove_unused_files(1, tmp_path)
    states.append(replay.save(1, tmp_path, tensor_files.write))
    replay.remove_unused_files(1, tmp_path)
    other = memory(3, prioritized=prioritized)
    other.restore(1, states[-1], tmp_path, tensor_files.read)
    uniforms = rng.random((S, 500))
    (one, _), (two, _) = replay.sample(uniforms, GAMMA, 0.7), other.sample(uniforms, GAMMA, 0.7)
    for name in ("observation", "action", "reward", "discount", "next_observation", "weight"):
        assert torch.equal(getattr(one, name)[1], getattr(two, name)[1]), name
    kept = {part["name"] for state in states[-2:] for part in state["segments"]}
    assert {path.name for path in tmp_path.iterdir()} == kept, "files of older checkpoints are gone"


def test_files_do_not_grow_with_the_memory_nor_outlive_it(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    replays, world, sizes = {large: memory(size=100_000), small: memory()}, World(), []
    for horizon in range(60):
        rollout = world.rollout()
        for folder, replay in replays.items():
            replay.add(rollout)
            replay.save(0, folder, tensor_files.write)
            replay.remove_unused_files(0, folder)
        sizes += [path.stat().st_size for path in large.glob(f"*-{(horizon + 1) * T}.pt")]
    assert len(set(sizes[5:])) <= 3
    assert max(sizes) < 1.1 * min(sizes)
    assert len(list(small.iterdir())) <= 60 // (E * T) + 2


def test_observations_are_stored_in_the_dtype_of_the_spec() -> None:
    images = spaces(Box(0, 255, (8, 8, 1), np.uint8))
    action = torch.zeros((), dtype=torch.int64)
    assert Replay(spec(), images, action, S, E, T).size_bytes == S * 24 * E * (64 + 8 + 16)
    half = memory(dtype="float16")
    whole = memory()
    assert whole.size_bytes - half.size_bytes == S * 24 * E * 2
    half.add(World().rollout())
    batch, _ = half.sample(np.zeros((S, 4)), GAMMA, 0.0)
    assert batch.observation.dtype == torch.float32


def test_observations_are_clamped_to_half_precision() -> None:
    half, rollout = memory(dtype="float16"), World().rollout()
    rollout.observation[1:, 0], rollout.observation[1:, 1] = 1e6, -float("inf")
    half.add(rollout)
    batch, _ = half.sample(np.full((S, 4), 0.99), GAMMA, 0.0)
    assert batch.observation[:, 0, 0].tolist() == [65504.0, -65504.0]
    with pytest.raises(LabError, match=r"algo.memory.dtype=float16 is not possible with env.id=E, whose .* 100,000"):
        spec(dtype="float16").check_observations("algo.memory", Box(-1e5, 1, (2,)), "E")
    spec(dtype="float16").check_observations("algo.memory", Box(-np.inf, np.finfo(np.float32).max, (2,)), "E")
    spec().check_observations("algo.memory", Box(-1e5, 1, (2,)), "E")


def test_a_memory_that_is_too_large_is_rejected_before_it_is_allocated() -> None:
    assert memory().description == "the replay memory holds 60 transitions in 2.02 KB"
    with pytest.raises(LabError, match=r"algo\.memory\.size=1000000000000 needs .* TB .* are free on this machine"):
        memory(size=10**12)
    assert [format_bytes(size) for size in (999, 1500, 2.5e9, 7e13)] == ["999 bytes", "1.5 KB", "2.5 GB", "70 TB"]
