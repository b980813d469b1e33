"""Layer normalization and batch renormalization against plain arithmetic, and that a stack changes no bit (law 1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from lab.algo.crossq import row_weights
from lab.errors import LabError
from lab.net.mlp import MLP
from lab.net.net import Net, Output
from lab.net.network import Parameters
from lab.net.normalization import EPS, RATE, BatchRenorm, LayerNorm, corrections
from tests.helpers import specs

SIZES = [(1, 7), (13, 7), (26, 64), (32, 1)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def test_layer_norm_is_torchs() -> None:
    ours, x = LayerNorm(2, 5), 3 * numbers(2, 4, 5) + 1
    for s in range(2):
        ours.weight.data[s], ours.bias.data[s] = numbers(1, 5, seed=s + 1), numbers(1, 5, seed=s + 3)
        theirs = nn.functional.layer_norm(x[s], (5,), ours.weight[s, 0], ours.bias[s, 0])
        assert torch.allclose(ours(x)[s], theirs, atol=1e-6)


def test_batches_are_normalized_by_their_own_moments_while_training_and_by_running_ones_after() -> None:
    ours, x = BatchRenorm(1, 5), 3 * numbers(1, 16, 5) + 1
    theirs = nn.BatchNorm1d(5, eps=EPS, momentum=RATE)
    assert torch.allclose(ours(x)[0], theirs(x[0]), atol=1e-5)
    assert torch.allclose(ours.mean[0, 0], theirs.running_mean, atol=1e-6)
    assert torch.allclose(ours.variance[0, 0], 1 + RATE * (x[0].var(0, unbiased=False) - 1), atol=1e-6)
    assert ours.batches.item() == 1
    ours.eval()
    theirs.eval()
    theirs.running_var.copy_(ours.variance[0, 0])
    mean = ours.mean.clone()
    assert torch.allclose(ours(x)[0], theirs(x[0]), atol=1e-5)
    assert torch.equal(ours.mean, mean), "looking at observations changes nothing"


def by_hand(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    chosen = x[mask > 0]
    return (x - chosen.mean(0)) / (chosen.var(0, unbiased=False) + EPS).sqrt()


def test_rows_outside_the_mask_have_no_part_in_the_moments() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0, 1.0], [0.0] * 6])
    x, ours = 2 * numbers(2, 6, 3) - 1, BatchRenorm(2, 3)
    ours.sample_weights = row_weights(mask)
    seen = ours(x)
    assert torch.allclose(seen[0], by_hand(x[0], mask[0]), atol=1e-5)
    assert torch.allclose(seen[1], by_hand(x[1], torch.ones(6)), atol=1e-5), "all rows, where the mask has none"
    ours.sample_weights = None
    assert torch.allclose(ours(x)[0], by_hand(x[0], torch.ones(6)), atol=1e-5)


def test_weights_of_rows() -> None:
    weights = row_weights(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0] * 4]))
    assert weights[..., 0].tolist() == [[0.5, 0.0, 0.5, 0.0], [0.25] * 4]


def test_the_gradient_is_that_of_the_arithmetic() -> None:
    mask, slope = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]]), numbers(1, 5, 3, seed=4)
    x = numbers(1, 5, 3).requires_grad_()
    ours = BatchRenorm(1, 3)
    ours.sample_weights = row_weights(mask)
    (gradients,) = torch.autograd.grad((ours(x) * slope).sum(), x)
    (expected,) = torch.autograd.grad((by_hand(x[0], mask[0]) * slope[0]).sum(), x)
    assert torch.allclose(gradients, expected, atol=1e-5)


def test_corrections_are_bounded() -> None:
    mean, variance = torch.tensor([0.5, 100.0, -100.0]), torch.tensor([4.0, 1e6, 1e-6]) - EPS
    running_mean, running_variance = torch.zeros(3), torch.ones(3) - EPS
    r, d = corrections(mean, variance.clamp(min=0), running_mean, running_variance)
    assert torch.allclose(r, torch.tensor([2.0, 3.0, 1 / 3]))
    assert torch.allclose(d, torch.tensor([0.5, 5.0, -5.0]))


def test_once_settled_a_batch_is_corrected_to_the_running_moments() -> None:
    ours, first, x = BatchRenorm(1, 5), numbers(1, 32, 5), 1.2 * numbers(1, 32, 5, seed=1) + 0.1
    ours.warmup = 1
    assert torch.allclose(ours(first)[0], by_hand(first[0], torch.ones(32)), atol=1e-5)
    ours.eval()
    expected = ours(x)
    ours.train()
    assert torch.allclose(ours(x), expected, atol=1e-4), "within the bounds, r and d make up the whole difference"
    far = 50 * x
    assert torch.allclose(ours(far)[0], 3 * by_hand(far[0], torch.ones(32)) + d_of(ours, far), atol=1e-2)


def d_of(ours: BatchRenorm, x: torch.Tensor) -> torch.Tensor:
    running = (ours.mean - RATE * x.mean(1)) / (1 - RATE)  # before the batch was taken in
    variance = (ours.variance - RATE * x.var(1, unbiased=False)) / (1 - RATE)
    return ((x.mean(1) - running) / (variance + EPS).sqrt()).clamp(-5, 5)


@pytest.mark.law
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("batch", "width"), SIZES)
@pytest.mark.parametrize("kind", [LayerNorm, BatchRenorm])
def test_law_1_of_a_normalization(kind: type[nn.Module], batch: int, width: int, training: bool) -> None:
    mask = (numbers(5, batch, seed=7) > 0).float()

    def figures(part: slice) -> list[torch.Tensor]:
        ours = kind(len(range(5)[part]), width)
        ours.train(training)
        if isinstance(ours, BatchRenorm):
            ours.sample_weights = row_weights(mask[part])
            ours.warmup = 1
        for seed in (1, 2):
            x = (2 * numbers(5, batch, width, seed=seed)[part] + 1).requires_grad_()
            y = ours(x)
        gradients = torch.autograd.grad((y * y * y).sum(), [x, *ours.parameters()])
        return [y.detach(), *gradients, *ours.buffers()]

    stacked = figures(slice(None))
    for s in range(5):
        for index, (several, one) in enumerate(zip(stacked, figures(slice(s, s + 1)), strict=True)):
            assert torch.equal(several[s], one[0]), index


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        ("none", "Linear Activation Linear Activation"),
        ("layer", "Linear LayerNorm Activation Linear LayerNorm Activation"),
        ("batch_renorm", "BatchRenorm Linear Activation BatchRenorm Linear Activation BatchRenorm"),
    ],
)
def test_where_normalizations_stand(norm: str, kinds: str) -> None:
    net = MLP(hidden=[5, 6], activation="relu", shared=False, gain=1.0, norm=norm)
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    network = net.build(Box(-1, 1, (4,)), [Output("value", 2, [1.0] * 3)], rngs, extra=2)
    assert [type(layer).__name__ for layer in network.trunks["value"]] == kinds.split()
    assert network(torch.zeros(3, 7, 4), "value", extra=torch.zeros(3, 7, 2))[0].shape == (3, 7, 2)


def test_running_moments_are_saved_and_restored() -> None:
    first, second = Parameters(BatchRenorm(2, 3)), BatchRenorm(1, 3)
    first.buffers["mean"][1], first.buffers["batches"][1] = 0.7, 9.0
    Parameters(second).restore(0, first.session(1))
    assert second.mean.flatten().tolist() == pytest.approx([0.7] * 3)
    assert second.batches.item() == 9


def test_a_net_without_layers_to_normalize() -> None:
    assert Net(shared=False).with_norm("none") == Net(shared=False)
    with pytest.raises(LabError, match=r"algo.norm=layer is not possible with net._target_=lab.net.net.Net"):
        Net(shared=False).with_norm("layer")


def test_batch_renormalization_is_for_those_who_learn_with_it() -> None:
    with pytest.raises(LabError, match=r"net.norm=batch_renorm is not allowed: .*only crossq"):
        specs("algo=sac", "net.norm=batch_renorm")
    with pytest.raises(LabError, match=r"net.norm=batches is not allowed: .*one of batch_renorm, layer, none"):
        specs("algo=sac", "net.norm=batches")
    assert specs("algo=sac", "net.norm=layer")[0].net.norm == "layer"
