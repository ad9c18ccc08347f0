"""What a review found: each was wrong once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import counted_flops
from fused_circuits import on_both, vectors
from random_circuits import error, file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.peft import QuantaConfig

CIRCUIT = compile_circuit(file_of("4x4x4", ["all_pairs"]))


class Wrapper(torch.Tensor):
    """A tensor without memory of its own, as a sharded one has none."""

    @staticmethod
    def __new__(cls, shape: tuple[int, ...]) -> Any:
        make: Any = torch.Tensor._make_wrapper_subclass
        return make(cls, shape, dtype=torch.float64)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} reached a wrapper")


def test_a_gate_that_is_a_tensor_of_another_kind_never_reaches_the_kernel() -> None:
    _, fused = on_both(CIRCUIT)
    for name, gate in list(fused.gates.items()):
        fused.gates._parameters[name] = Wrapper(tuple(gate.shape))
    with torch.no_grad(), pytest.raises(RuntimeError, match="reached a wrapper"):
        fused(vectors(CIRCUIT, 3))


def test_a_lazily_negated_input_is_negated() -> None:
    plain, fused = on_both(CIRCUIT)
    x = torch._neg_view(vectors(CIRCUIT, 3))
    with torch.no_grad():
        assert error(fused(x), plain(x)) < 1e-12


def test_jacobians_of_many_outputs_at_once() -> None:
    plain, fused = on_both(CIRCUIT)
    x = vectors(CIRCUIT, 2)
    jacobian: Any = torch.autograd.functional.jacobian
    assert error(jacobian(fused, x, vectorize=True), jacobian(plain, x, vectorize=True)) < 1e-12


def test_recomputing_under_torch_func() -> None:
    plain, recomputing = on_both(CIRCUIT, backend="torch", recompute=True)
    x = vectors(CIRCUIT, 3)

    def gradient(module: Any) -> torch.Tensor:
        found: torch.Tensor = torch.func.grad(lambda given: module(given).square().sum())(x)
        return found

    assert error(gradient(recomputing), gradient(plain)) < 1e-12


def test_flops_are_counted() -> None:
    plain, fused = on_both(CIRCUIT)
    x = vectors(CIRCUIT, 3).requires_grad_()
    assert counted_flops(lambda: fused(x)) == counted_flops(lambda: plain(x))
    y = fused(x)
    # The states again, the gradient passed on, those of the matrices.
    assert counted_flops(lambda: y.sum().backward()) == 3 * counted_flops(lambda: plain(x))


@pytest.mark.parametrize("value", ["true", None, 1])
def test_recompute_is_true_or_false(value: Any) -> None:
    with pytest.raises(ValueError, match="`recompute` is True or False, got"):
        QuantaConfig(circuit=file_of("4x4", ["all_pairs"]), recompute=value)
