"""The newest steps against a list of all that happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box

from lab.errors import LabError
from lab.memory.recent import RecentSteps
from lab.memory.rollout import Rollout, Statistics
from lab.run import checkpoint
from tests.memory.test_replay import E, S, T, World

NAMES = ("observation", "action", "reward", "valid", "carry")


def made(steps: int = 130, carry: int = 0) -> RecentSteps:
    return RecentSteps(steps, Box(0, 255, (1,)), torch.zeros((), dtype=torch.int64), S, E, T, carry)


def horizon(world: World, carry: int = 0) -> Rollout:
    rollout = world.rollout()
    rollout.carry = torch.full((S, E, carry), float(len(world.steps) - T))
    return rollout


def test_whole_horizons_are_kept_in_blocks() -> None:
    assert [(made(steps).block, made(steps).blocks) for steps in (1, 64, 65, 130)] == [
        (64, 1),
        (64, 1),
        (64, 2),
        (64, 3),
    ]
    assert (made(1_000_000).block, made(1_000_000).blocks) == (3908, 256)
    assert made().description.startswith("the last 192 steps of each environment are kept, in ")


@pytest.mark.parametrize("horizons", [1, 16, 17, 40, 48, 61])
def test_blocks_are_what_happened(horizons: int) -> None:
    recent, world = made(carry=2), World()
    rollouts = []
    for _ in range(horizons):
        rollouts.append(horizon(world, 2))
        recent.add(rollouts[-1])
    first = T * horizons - recent.capacity
    ever = {name: torch.cat([getattr(rollout, name) for rollout in rollouts]) for name in ("reward", "valid", "action")}
    for number in range(recent.blocks):
        block = recent.read_block(number, None)
        for t in range(recent.block):
            step = first + number * recent.block + t
            if step < 0:
                assert not block.valid[t].any() and not block.terminated[t].any()
                assert torch.equal(block.observation[t], rollouts[0].observation[0]), "no state that could not be"
                continue
            for name, steps in ever.items():
                assert torch.equal(getattr(block, name)[t], steps[step])
            assert torch.equal(block.terminated[t], rollouts[step // T].done[step % T])
            assert torch.equal(block.observation[t], rollouts[step // T].observation[step % T])
            assert torch.equal(block.observation[t + 1], rollouts[step // T].observation[step % T + 1])
        begun = max(first + number * recent.block, 0)
        assert torch.equal(block.carry, torch.full((S, E, 2), float(begun)))


def test_blocks_are_normalized_by_the_statistics_of_now() -> None:
    recent, world = made(60), World()
    for _ in range(20):
        recent.add(horizon(world))
    now = Statistics(
        2.0, torch.tensor([[[3.0]], [[1003.0]]]), torch.tensor([[[50.0]], [[70.0]]]), torch.tensor([[0.5], [3.0]])
    )
    raw, block = recent.read_block(0, None), recent.read_block(0, now)
    for s, (mean, deviation, scale) in enumerate([(3.0, 50.0, 0.5), (1003.0, 70.0, 3.0)]):
        assert torch.equal(block.observation[:, s], ((raw.observation[:, s] - mean) / deviation).clamp(-2, 2))
        assert torch.equal(block.reward[:, s], (raw.reward[:, s] / scale).clamp(-2, 2))


@pytest.mark.parametrize("horizons", [3, 40, 70])
def test_what_was_saved_is_restored_and_goes_on_the_same(tmp_path: Path, horizons: int) -> None:
    recent, world = made(carry=1), World()
    state = {}
    for number in range(horizons):
        recent.add(horizon(world, 1))
        if number % 7 == 2 or number == horizons - 1:
            if number == 16:
                recent.cut_episodes(1)
            state = recent.save(1, tmp_path, checkpoint.write)
            recent.remove_unused_files(1, tmp_path)
    other = made(carry=1)
    other.restore(1, state, tmp_path, checkpoint.read)
    for _ in range(3):
        for number in range(recent.blocks):
            one, two = recent.read_block(number, None), other.read_block(number, None)
            for name in (*NAMES[:-1], "terminated"):
                assert torch.equal(getattr(one, name)[:, 1], getattr(two, name)[:, 1]), name
            assert torch.equal(one.carry[1], two.carry[1])
        rollout = horizon(world, 1)
        recent.add(rollout)
        other.add(rollout)


def test_what_cannot_fit_is_refused_before_it_is_made() -> None:
    with pytest.raises(
        LabError, match=r"algo.episode_steps=1000000000000 needs .* TB .* are free on this machine: try fewer"
    ):
        made(10**12)
