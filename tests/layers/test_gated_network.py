"""Activations whose derivatives are written out."""

import pytest
import torch

from phystrain.layers.activations import SiLU
from phystrain.layers.gated_network import gated_silu


def plain(value, gate):
    return torch.nn.functional.silu(value) * torch.sigmoid(gate)


CASES = {"silu": (SiLU(), torch.nn.functional.silu, 1), "gated_silu": (gated_silu, plain, 2)}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_three_orders_are_those_of_autograd(name):
    ours, expected, arguments = CASES[name]
    torch.manual_seed(0)
    given = [3 * torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(arguments)]
    factors = torch.randn(3, 5, 4, dtype=torch.float64)
    found = []
    for function in (ours, expected):
        value = function(*given)
        results = [value]
        for factor in factors:
            derivatives = torch.autograd.grad((value * factor).sum(), given, create_graph=True)
            results += derivatives
            value = sum(derivative.square() + derivative for derivative in derivatives)
        found.append([result.detach() for result in results])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_against_differences(name):
    ours, _, arguments = CASES[name]
    torch.manual_seed(0)
    given = tuple(torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(arguments))
    assert torch.autograd.gradcheck(ours, given)
    assert torch.autograd.gradgradcheck(ours, given)


def test_function_transforms_work():
    x = torch.randn(6, dtype=torch.float64)
    found = torch.func.grad(lambda x: gated_silu(SiLU()(x), x).sum())(x)
    expected = torch.func.grad(lambda x: plain(torch.nn.functional.silu(x), x).sum())(x)
    torch.testing.assert_close(found, expected)
