"""T x - S x by one call of the operator: the difference of two circuits of one table, rounded once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compiled_circuits import compiled, counted_flops, scaled_module
from quick_seeds import every_second
from random_circuits import error

from quanta_compiler.kernels.executable import Executable, executable
from quanta_compiler.kernels.operator import APPLY_BACKWARD, apply_circuit


def two_sides(found: Executable, *, frozen: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the matrices of T, and those of S, which are close to them."""
    generator = torch.Generator().manual_seed(1)
    own = [torch.randn(count, generator=generator, dtype=torch.float64) / 2 for count in found.numbers]
    near = [one + torch.randn(one.shape, generator=generator, dtype=torch.float64) / 10 for one in own]
    return [one.requires_grad_() for one in own], [one.requires_grad_(not frozen) for one in near]


@pytest.mark.parametrize("engine", ["cpu", "portable"])
@pytest.mark.parametrize("seed", every_second(range(12)))
def test_it_is_the_difference_of_two_calls(seed: int, engine: str, name_engine: Callable[[str], None]) -> None:
    name_engine(engine)
    circuit = str(scaled_module(compiled(seed)).circuit)
    found = executable(circuit)
    if not found.numbers:
        pytest.skip("a circuit without gates has no difference")
    own, minus = two_sides(found, frozen=seed % 2 == 0)
    x = torch.randn(3, 2, found.in_features, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x.requires_grad_()
    wanted = [tensor for tensor in (x, *own, *minus) if tensor.requires_grad]
    y = apply_circuit(circuit, x, [*own, *minus])
    expected = apply_circuit(circuit, x, own) - apply_circuit(circuit, x, minus)
    assert error(y, expected) < 1e-12
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    floor = 1e-3 * float(grad.norm())
    for one, other in zip(
        torch.autograd.grad(y, wanted, grad), torch.autograd.grad(expected, wanted, grad), strict=True
    ):
        assert error(one, other, floor) < 1e-11
    assert not apply_circuit(circuit, x, [*own, *own]).any(), "equal circuits leave nothing"


def test_it_is_rounded_once() -> None:
    """In bfloat16 each of the two would be rounded by more than their difference is."""
    circuit = str(scaled_module(compiled(2)).circuit)
    found = executable(circuit)
    own, _ = two_sides(found, frozen=True)
    minus = [one.detach() + 1e-4 * torch.randn_like(one) for one in own]
    x = torch.randn(5, found.in_features).bfloat16()
    given = [one.detach().float() for one in (*own, *minus)]
    exact = apply_circuit(circuit, x.double(), [one.double() for one in given])
    assert error(apply_circuit(circuit, x, given), exact) < 2e-2
    apart = apply_circuit(circuit, x, given[: len(own)]) - apply_circuit(circuit, x, given[len(own) :])
    assert error(apart, exact) > 1


def test_its_flops_are_those_of_both() -> None:
    circuit = str(scaled_module(compiled(2)).circuit)
    found = executable(circuit)
    own, minus = two_sides(found, frozen=True)
    x = torch.randn(4, found.in_features, dtype=torch.float64)
    one = counted_flops(lambda: apply_circuit(circuit, x, own))
    assert counted_flops(lambda: apply_circuit(circuit, x, [*own, *minus])) == 2 * one
    needed = [True, *[True] * len(own), *[False] * len(own)]
    grad = torch.randn(4, found.out_features, dtype=torch.float64)
    assert counted_flops(lambda: APPLY_BACKWARD(grad, x, [*own, *minus], circuit, needed)) == 4 * one
