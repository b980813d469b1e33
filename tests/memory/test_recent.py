"""The newest steps against a list of all steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box

from lab.errors import LabError
from lab.memory.recent import RecentSteps
from lab.memory.rollout import Rollout, Statistics
from lab.run import tensor_files
from tests.memory.test_replay import E, S, T, World, spaces

NAMES = ("observation", "action", "reward", "valid", "carry")


def make(steps: int = 130, carry: int = 0) -> RecentSteps:
    return RecentSteps(steps, spaces(Box(0, 255, (1,))), torch.zeros((), dtype=torch.int64), S, E, T, carry)


def horizon(world: World, carry: int = 0) -> Rollout:
    rollout = world.rollout()
    rollout.carry = torch.full((S, E, carry), float(len(world.steps) - T))
    return rollout


def test_blocks_hold_whole_horizons() -> None:
    sizes = [(make(steps).block, make(steps).blocks) for steps in (1, 64, 65, 130)]
    assert sizes == [(64, 1), (64, 1), (64, 2), (64, 3)]
    assert (make(1_000_000).block, make(1_000_000).blocks) == (3908, 256)
    assert make().description.startswith("the last 192 steps of each environment are kept, in ")


@pytest.mark.parametrize("horizons", [1, 16, 17, 40, 48, 61])
def test_blocks_hold_the_steps_that_were_added(horizons: int) -> None:
    recent, world = make(carry=2), World()
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
                assert torch.equal(block.observation[t], rollouts[0].observation[0]), "only real observations"
                continue
            for name, steps in ever.items():
                assert torch.equal(getattr(block, name)[t], steps[step])
            assert torch.equal(block.terminated[t], rollouts[step // T].done[step % T])
            assert torch.equal(block.observation[t], rollouts[step // T].observation[step % T])
            assert torch.equal(block.observation[t + 1], rollouts[step // T].observation[step % T + 1])
        start = max(first + number * recent.block, 0)
        assert torch.equal(block.carry, torch.full((S, E, 2), float(start)))


def test_blocks_are_normalized_by_the_current_statistics() -> None:
    recent, world = make(60), World()
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
def test_restored_steps_continue_equally(tmp_path: Path, horizons: int) -> None:
    recent, world = make(carry=1), World()
    state = {}
    for number in range(horizons):
        recent.add(horizon(world, 1))
        if number % 7 == 2 or number == horizons - 1:
            if number == 16:
                recent.cut_episodes(1)
            state = recent.save(1, tmp_path, tensor_files.write)
            recent.remove_unused_files(1, tmp_path)
    other = make(carry=1)
    other.restore(1, state, tmp_path, tensor_files.read)
    for _ in range(3):
        for number in range(recent.blocks):
            one, two = recent.read_block(number, None), other.read_block(number, None)
            for name in (*NAMES[:-1], "terminated"):
                assert torch.equal(getattr(one, name)[:, 1], getattr(two, name)[:, 1]), name
            assert torch.equal(one.carry[1], two.carry[1])
        rollout = horizon(world, 1)
        recent.add(rollout)
        other.add(rollout)


def test_too_many_steps_are_rejected_before_they_are_allocated() -> None:
    with pytest.raises(
        LabError, match=r"algo.episode_steps=1000000000000 needs .* TB .* are free on this machine: try fewer"
    ):
        make(10**12)
