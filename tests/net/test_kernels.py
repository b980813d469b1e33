"""Arithmetic of compiled steps, against that of torch."""

from __future__ import annotations

import pytest
import torch

from lab.net.kernels import WIDE, product, rational_tanh, tanh


def test_the_rational_tanh_is_tanh() -> None:
    x = torch.cat([torch.linspace(-12, 12, 200_001), torch.logspace(-6, 0, 1000), torch.tensor([0.0, 1e30, -1e30])])
    expected = x.double().tanh()
    error = (rational_tanh(x).double() - expected).abs()
    assert (error <= 4e-7 * expected.abs()).all()
    assert rational_tanh(torch.tensor(float("nan"))).isnan()


def test_the_gradient_of_the_rational_tanh() -> None:
    x = torch.linspace(-3, 3, 101, requires_grad=True)
    (gradient,) = torch.autograd.grad(tanh(x).sum(), x)
    (expected,) = torch.autograd.grad(x.double().tanh().sum(), x)
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("samples", "inputs", "outputs"), [(1, 7, 20), (5, 7, 3), (5, 40, 20), (9, WIDE, WIDE + 2)])
def test_products_and_their_gradients(samples: int, inputs: int, outputs: int, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, samples, inputs, generator=generator, requires_grad=True)
    weight = torch.randn(1, inputs, outputs, generator=generator)
    stored = (weight.mT.contiguous() if transposed else weight).requires_grad_()
    along = torch.randn(1, samples, outputs, generator=generator)
    result = product(x, stored, transposed)
    expected = x.double() @ (stored.mT if transposed else stored).double()
    assert torch.allclose(result.double(), expected, atol=1e-4)
    gradients = torch.autograd.grad(result, (x, stored), along)
    references = torch.autograd.grad(expected, (x, stored), along.double())
    for gradient, reference in zip(gradients, references, strict=True):
        assert torch.allclose(gradient, reference, atol=1e-4)
