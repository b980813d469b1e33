from __future__ import annotations

import torch

from lab.memory.rollout import Rollout, by_session, dealt, shuffled


def test_by_session_lays_out_steps_in_time_order() -> None:
    steps = torch.arange(2 * 3 * 4).view(2, 3, 4)
    laid = by_session(steps)
    assert laid.shape == (3, 8)
    assert laid[1].tolist() == [4, 5, 6, 7, 16, 17, 18, 19]


def test_minibatches_hold_every_sample_of_their_own_session_once() -> None:
    samples = {"number": torch.arange(12).view(2, 6), "row": torch.arange(24).view(2, 6, 2)}
    order = torch.tensor([[5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]])
    first, second, third = dealt(shuffled(samples, order, 3))
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
    )
    assert rollout.done.tolist() == [[[1, 1, 0]]]
