"""The operator by the generated kernels in torch's modes, as far as an interpreter on CPU tensors can be in them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compiled_circuits import saved_bytes, scaled_module
from fused_circuits import assert_close, gradients, matrices_of, on_both, vectors
from interpreted_kernels import needs_triton
from random_circuits import error, file_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engine import engine_name
from quanta_compiler.kernels.operator import APPLY, APPLY_BACKWARD

pytestmark = [needs_triton, pytest.mark.usefixtures("interpreter")]
CIRCUIT = compile_circuit(
    file_of("3x4x2", [[0, 1], {"axes": [2], "per": [0]}, {"axes": [1, 2], "kind": "lowrank", "rank": 3}])
)
CLOSE = 2e-6


@pytest.fixture
def both() -> tuple[Any, Any]:
    """Return the emitted module in float64, and the same on the engine in float32."""
    plain, fused = on_both(CIRCUIT, torch.float32)
    return copy.deepcopy(plain).double(), fused


def as_float32(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: gradient.float() for name, gradient in found.items()}


def test_the_engine_is_the_one_that_is_judged() -> None:
    assert engine_name("cpu", torch.float32) == engine_name("cpu", torch.bfloat16) == "triton"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_schemas_fake_tensors_and_autograd(dtype: torch.dtype) -> None:
    module = scaled_module(CIRCUIT, dtype)
    text, matrices = str(module.circuit), [matrix.to(dtype) for matrix in matrices_of(module)]
    utils: dict[str, Any] = {"test_utils": ("test_schema", "test_autograd_registration", "test_faketensor")}
    grad, needed = torch.randn(2, 3, 24).to(dtype), [True] * (1 + len(matrices))
    for given in (matrices, [matrix.float() for matrix in matrices]):
        leaves = [matrix.clone().requires_grad_(place % 2 == 0) for place, matrix in enumerate(given)]
        x = vectors(CIRCUIT, 2, 3, dtype=dtype)
        torch.library.opcheck(APPLY, (x.clone().requires_grad_(), leaves, text), **utils)
        torch.library.opcheck(APPLY_BACKWARD, (grad, x, given, text, needed), **utils)
        torch.library.opcheck(APPLY_BACKWARD, (grad, None, given, text, [True] + [False] * len(given)), **utils)


def test_stand_ins_know_shapes_and_dtypes() -> None:
    module = scaled_module(CIRCUIT, torch.bfloat16)
    text, shapes = str(module.circuit), [matrix.shape for matrix in matrices_of(module)]
    with FakeTensorMode():
        y = APPLY(torch.empty(5, 24, dtype=torch.bfloat16), list(map(torch.empty, shapes)), text)
    assert (y.shape, y.dtype) == ((5, 24), torch.bfloat16)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_whole(both: tuple[Any, Any], backend: str) -> None:
    torch.compiler.reset()
    exact, fused = both
    fast: Any = torch.compile(fused, fullgraph=True, backend=backend, dynamic=True)
    for tokens in (5, 9):
        x = vectors(CIRCUIT, tokens, dtype=torch.float32)
        expected, weights = (
            gradients(exact, x.double()),
            torch.randn(tokens, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
        )
        x.requires_grad_()
        wanted = {"x": x, **dict(fused.named_parameters())}
        found = torch.autograd.grad(fast(x), list(wanted.values()), weights.float())
        assert_close(dict(zip(wanted, found, strict=True)), as_float32(expected), CLOSE)


def test_exported_with_any_number_of_tokens(both: tuple[Any, Any]) -> None:
    exact, fused = both
    program = torch.export.export(
        fused, (vectors(CIRCUIT, 4, dtype=torch.float32),), dynamic_shapes={"x": {0: torch.export.Dim("n")}}
    )
    x = vectors(CIRCUIT, 7, dtype=torch.float32)
    assert error(program.module()(x), exact(x.double())) < CLOSE


def test_vmap_over_inputs_and_over_gates(both: tuple[Any, Any]) -> None:
    _, fused = both
    x = vectors(CIRCUIT, 3, 2, dtype=torch.float32)
    assert error(torch.vmap(fused)(x), fused(x)) < CLOSE
    assert error(torch.vmap(fused, in_dims=1, out_dims=1)(x), fused(x)) < CLOSE
    several = [scaled_module(CIRCUIT, torch.float32, seed=number) for number in range(3)]
    stacked, _ = torch.func.stack_module_state(several)
    found = torch.vmap(lambda tensors, x: torch.func.functional_call(fused, tensors, (x,)))(stacked, x)
    assert error(found, torch.stack([module(one) for module, one in zip(several, x, strict=True)])) < CLOSE


def test_functional_and_forward_differentiation(both: tuple[Any, Any]) -> None:
    exact, fused = both
    x, tangent = vectors(CIRCUIT, 2, dtype=torch.float32), vectors(CIRCUIT, 2, dtype=torch.float32, seed=8)
    assert error(torch.func.jvp(fused, (x,), (tangent,))[1], exact(tangent.double())) < CLOSE
    found = torch.func.grad(lambda x: fused(x).square().sum())(x)
    assert error(found, torch.func.grad(lambda x: exact(x).square().sum())(x.double())) < CLOSE
    jacobian: Any = torch.autograd.functional.jacobian
    assert error(jacobian(fused, x, vectorize=True), jacobian(exact, x.double())) < CLOSE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_rounds_the_input_and_the_result_but_no_gate(both: tuple[Any, Any], dtype: torch.dtype) -> None:
    exact, fused = both
    x = vectors(CIRCUIT, 9, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        y, again = fused(x), fused(x.to(dtype))
    assert y.dtype == dtype
    assert torch.equal(y, again)
    rounded = exact(x.to(dtype).double())
    step = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    assert bool(((y.double() - rounded).abs() <= step * rounded.abs() + 1e-5).all())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_circuits_have_the_same_gradients(both: tuple[Any, Any], reentrant: bool) -> None:
    _, fused = both
    expected = gradients(fused, vectors(CIRCUIT, 9, dtype=torch.float32), weights=torch.ones(9, 24))
    x = vectors(CIRCUIT, 9, dtype=torch.float32).requires_grad_()
    checkpoint(fused, x, use_reentrant=reentrant).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, expected.pop("x"))
    assert all(torch.equal(fused.get_parameter(name).grad, gradient) for name, gradient in expected.items())


def test_gradients_that_can_be_differentiated_again(both: tuple[Any, Any]) -> None:
    found = []
    for module, dtype in zip(both, (torch.float64, torch.float32), strict=True):
        x = vectors(CIRCUIT, 4, dtype=dtype).requires_grad_()
        wanted = {"x": x, **dict(module.named_parameters())}
        first = torch.autograd.grad(module(x).square().sum(), list(wanted.values()), create_graph=True)
        norm = torch.stack([gradient.square().sum() for gradient in first]).sum()
        found.append(dict(zip(wanted, torch.autograd.grad(norm, list(wanted.values())), strict=True)))
    assert_close(found[1], as_float32(found[0]), 1e-5)


def test_a_copy_computes_the_same(both: tuple[Any, Any]) -> None:
    _, fused = both
    x = vectors(CIRCUIT, 5, dtype=torch.float32)
    other = copy.deepcopy(fused)
    assert torch.equal(other(x), fused(x))
    assert {p.data_ptr() for p in other.parameters()}.isdisjoint(p.data_ptr() for p in fused.parameters())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_circuit_first_met_in_a_mode(both: tuple[Any, Any], mode: Any) -> None:
    exact, fused = both
    x = vectors(CIRCUIT, 5, dtype=torch.float32)
    with mode():
        assert error(fused(x), exact(x.double())) < CLOSE
    assert_close(gradients(fused, x), as_float32(gradients(exact, x.double())), CLOSE)


def test_nothing_but_the_input_is_kept(both: tuple[Any, Any]) -> None:
    _, fused = both
    x = vectors(CIRCUIT, 50, dtype=torch.float32).requires_grad_()
    assert saved_bytes(fused, lambda: fused(x)) == x.numel() * 4
    assert saved_bytes(fused.requires_grad_(False), lambda: fused(x)) == 0
