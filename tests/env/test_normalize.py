from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.env.normalize import RewardScale, RunningMoments


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
@settings(max_examples=50)
def test_moments_of_batches_equal_those_of_all_data(sizes: list[int]) -> None:
    data = np.random.default_rng(0).normal(3, 2, (sum(sizes), 2))
    moments = RunningMoments(2)
    for batch in np.split(data, np.cumsum(sizes)[:-1]):
        moments.update(batch)
    if len(data):
        assert moments.mean == pytest.approx(data.mean(0))
        assert moments.variance == pytest.approx(data.var(0))
    else:
        assert moments.variance.tolist() == [1, 1]


def test_moments_do_not_depend_on_memory_layout() -> None:
    data = np.random.default_rng(0).normal(size=(500, 4, 3))
    first, second = RunningMoments(3), RunningMoments(3)
    first.update(data[:, 2])
    second.update(data[:, 2].copy())
    assert first.state() == second.state()


def test_reward_scale_by_hand() -> None:
    scale = RewardScale(num_envs=1, gamma=0.5, clip=10.0)
    reward = np.array([[1.0], [1.0], [0.0], [2.0]])
    done = np.array([[False], [True], [False], [False]])
    valid = np.array([[True], [True], [False], [True]])
    # Discounted returns 1, 1.5, then a reset, then 2.
    deviation = np.std([1.0, 1.5, 2.0])
    scaled = scale.scale(reward, done, valid)
    assert scaled[:, 0] == pytest.approx(np.array([1, 1, 0, 2]) / np.sqrt(deviation**2 + 1e-8))
    assert scale.discounted.tolist() == [2.0]
    assert np.abs(RewardScale(1, 0.5, 0.1).scale(reward, done, valid)).max() == 0.1


def test_a_restored_scale_continues_equally() -> None:
    first, second = RewardScale(2, 0.9, 10), RewardScale(2, 0.9, 10)
    rng = np.random.default_rng(0)
    horizon = rng.normal(size=(5, 2)), np.zeros((5, 2), bool), np.ones((5, 2), bool)
    first.scale(*horizon)
    second.restore(first.state())
    assert first.scale(*horizon).tolist() == second.scale(*horizon).tolist()
