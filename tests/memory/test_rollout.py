from __future__ import annotations

import torch

from lab.memory.rollout import Rollout, by_environment, by_session, take


def test_by_session_lays_out_steps_in_time_order() -> None:
    steps = torch.arange(2 * 3 * 4).view(2, 3, 4)
    laid = by_session(steps)
    assert laid.shape == (3, 8)
    assert laid[1].tolist() == [4, 5, 6, 7, 16, 17, 18, 19]


def test_minibatches_hold_every_sample_of_their_own_session_once() -> None:
    samples = {"number": torch.arange(12).view(2, 6), "row": torch.arange(24).view(2, 6, 2)}
    order = torch.tensor([[5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]])
    first, second, third = (take(samples, rows) for rows in order.chunk(3, 1))
    assert first["number"].tolist() == [[5, 4], [6, 8]]
    assert second["number"].tolist() == [[3, 2], [10, 7]]
    assert third["number"].tolist() == [[1, 0], [9, 11]]
    assert torch.equal(first["row"][..., 0], first["number"] * 2)


def test_done_is_either_ending() -> None:
    zeros = torch.zeros(1, 1, 3)
    rollout = Rollout(
        zeros,
        zeros,
        zeros,
        terminated=torch.tensor([[[1.0, 0, 0]]]),
        truncated=torch.tensor([[[0, 1.0, 0]]]),
        valid=zeros,
        carry=zeros,
    )
    assert rollout.done.tolist() == [[[1, 1, 0]]]


def test_environments_one_after_the_other() -> None:
    steps = torch.arange(3 * 2 * 4).view(3, 2, 4)
    laid = by_environment(steps)
    assert laid.shape == (2, 12)
    assert laid[1].tolist() == [int(steps[t, 1, e]) for e in range(4) for t in range(3)]
    assert by_environment(steps.unsqueeze(-1)).shape == (2, 12, 1)


def test_sequences_are_taken_whole() -> None:
    samples = {"step": torch.arange(2 * 12).view(2, 12), "carry": torch.arange(2 * 4 * 5).view(2, 4, 5)}
    order = torch.tensor([[2, 0, 3, 1], [0, 1, 2, 3]])
    first, second = (take(samples, rows, units=4) for rows in order.chunk(2, 1))
    assert first["step"].tolist() == [[6, 7, 8, 0, 1, 2], [12, 13, 14, 15, 16, 17]]
    assert second["step"][0].tolist() == [9, 10, 11, 3, 4, 5]
    assert torch.equal(first["carry"][0], samples["carry"][0, [2, 0]])
    assert torch.equal(second["carry"][1], samples["carry"][1, [2, 3]])


def test_states_that_begin_an_episode_follow_steps_of_a_reset() -> None:
    valid = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None, None]
    steps = torch.zeros(4, 1, 1)
    rollout = Rollout(torch.zeros(5, 1, 1, 2), steps, steps, steps, steps, valid, torch.zeros(1, 1, 0))
    assert rollout.episode_starts.flatten().tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]
