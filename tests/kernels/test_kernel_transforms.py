"""Circuits under autocast, checkpointing, torch.func, forward and repeated differentiation, and without gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from compiled_circuits import compiled, scaled_module
from fused_circuits import assert_close, gradients, on_both, vectors
from random_circuits import error, file_of
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.cpu import engine as cpu

STEPS = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
WHOLE = file_of("6x4", [[0], {"axes": [0, 1], "kind": "lowrank", "rank": 20}, {"axes": [1], "kind": "diagonal"}, [1]])
"""With a product of factors that is built as one matrix."""


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> CompiledCircuit:
    monkeypatch.setattr(cpu, "prefers", lambda *_: True)
    return compile_circuit({**WHOLE, "name": "whole"})


@pytest.fixture(params=["kernel", "portable"])
def path(request: pytest.FixtureRequest, name_engine: Callable[[str], None]) -> str:
    """Run what follows by the kernel, and by what takes its place."""
    if request.param == "portable":
        name_engine("portable")
    elif not cpu.ready():
        pytest.skip("there is no kernel")
    return str(request.param)


# Autocast


@pytest.mark.parametrize("dtype", STEPS, ids=str)
@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_autocast_rounds_the_input_and_the_result_but_no_gate(
    whole: CompiledCircuit, path: str, backend: str, dtype: torch.dtype
) -> None:
    _, module = on_both(whole, torch.float32, backend)
    x = vectors(whole, 21, dtype=torch.float32)
    exact = copy.deepcopy(module).double()(x.to(dtype).double())
    with torch.autocast("cpu", dtype):
        y = module(x)
        again = module(x.to(dtype))
    assert y.dtype == dtype
    if backend == "fused" or (path == "kernel" and dtype == torch.bfloat16):
        assert bool(((y.double() - exact).abs() <= STEPS[dtype] * exact.abs() + 1e-5).all())
        assert torch.equal(again, y)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_gradients_under_autocast_are_float32_and_of_the_rounded_input_alone(
    whole: CompiledCircuit, path: str, twice: bool, inside: bool
) -> None:
    """Also where backward itself is called under autocast, and where it is to be differentiated again."""
    _, fused = on_both(whole, torch.float32)
    exactly = copy.deepcopy(fused).double()
    x = vectors(whole, 12, dtype=torch.float32).requires_grad_()
    weights = torch.randn(12, 24).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = fused(x)
    wanted = {"x": x, **dict(fused.named_parameters())}
    with torch.autocast("cpu", torch.bfloat16, enabled=inside):
        found = torch.autograd.grad(y, list(wanted.values()), weights, create_graph=twice)
    exact = gradients(exactly, x.bfloat16().double(), weights=weights)
    for (name, tensor), gradient in zip(wanted.items(), found, strict=True):
        assert gradient.dtype == tensor.dtype == torch.float32
        # The input's gradient comes in the dtype that the input was rounded to. That of the product of two factors is
        # exact, but handed on to them by torch, which heeds autocast even here.
        rounded = name == "x" or (inside and name.startswith("gates.g1."))
        assert error(gradient, exact[name]) < (2.0**-8 if rounded else 1e-5), name


def test_autocast_leaves_double_alone(whole: CompiledCircuit) -> None:
    plain, fused = on_both(whole)
    x = vectors(whole, 9)
    with torch.autocast("cpu", torch.bfloat16):
        y = fused(x)
    assert y.dtype == torch.float64
    assert error(y, plain(x)) < 1e-12


@pytest.mark.parametrize("transform", [torch.func.grad, torch.vmap])
def test_autocast_rounds_no_sum_under_a_transform(whole: CompiledCircuit, transform: Callable[..., Any]) -> None:
    _, fused = on_both(whole, torch.float32)
    x = vectors(whole, 9, dtype=torch.float32)
    exact = copy.deepcopy(fused).double()
    with torch.autocast("cpu", torch.bfloat16):
        if transform is torch.vmap:
            y, expected, close = torch.vmap(fused)(x), exact(x.bfloat16().double()), 2.0**-8
        else:
            y = torch.func.grad(lambda x: fused(x).float().square().sum())(x)
            expected = torch.func.grad(lambda x: exact(x).square().sum())(x.bfloat16().double())
            close = 2.0**-7  # the result is rounded, and the gradient
    assert error(y, expected) < close


# Checkpointing


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_checkpointed_circuits_have_the_same_gradients(whole: CompiledCircuit, backend: str, reentrant: bool) -> None:
    _, module = on_both(whole, torch.float32, backend)

    class Recomputed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = checkpoint(self.inner, x, use_reentrant=reentrant)
            return result

    x = vectors(whole, 19, dtype=torch.float32)
    expected, found = gradients(module, x), gradients_by_backward(Recomputed(), x)
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name.removeprefix("inner.")]), name


def gradients_by_backward(module: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what `gradients` does; reentrant checkpoints know `backward` alone."""
    x = x.detach().requires_grad_()
    y = module(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y.dtype))
    wanted = [("x", x), *((name, p) for name, p in module.named_parameters() if p.requires_grad)]
    return {name: tensor.grad for name, tensor in wanted if tensor.grad is not None}


# torch.func


@pytest.mark.parametrize("seed", range(10))
def test_functional_gradients_are_autograd_s(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit)
    x = vectors(circuit, 5)
    weights = torch.randn(5, circuit.spec.out_features, dtype=torch.float64)
    tensors = dict(fused.named_parameters())

    def loss(x: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Any:
        return (torch.func.functional_call(fused, tensors, (x,)) * weights).sum()

    of_x, of_tensors = torch.func.grad(loss, argnums=(0, 1))(x, tensors)
    expected = gradients(plain.requires_grad_(), x, weights=weights)
    assert_close({"x": of_x, **of_tensors}, expected, 1e-11)
    # One gradient for every token.
    one = torch.vmap(torch.func.grad(lambda x, w: (fused(x) * w).sum()))
    assert error(one(x, weights), expected["x"]) < 1e-11


@pytest.mark.parametrize("seed", range(10))
def test_vmap_over_inputs_and_over_stacked_gates(seed: int) -> None:
    circuit = compiled(seed)
    _, fused = on_both(circuit)
    x = vectors(circuit, 4, 3)
    assert error(torch.vmap(fused)(x), fused(x)) < 1e-12
    assert error(torch.vmap(fused, in_dims=1, out_dims=1)(x), fused(x)) < 1e-12
    assert error(torch.vmap(torch.vmap(fused))(x), fused(x)) < 1e-12
    several = [scaled_module(circuit, seed=number) for number in range(4)]
    if [*fused.parameters()]:
        stacked, _ = torch.func.stack_module_state(several)

        def call(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(fused, tensors, (x,))  # type: ignore[no-any-return]

        for dims, given in (((0, None), [x[0]] * 4), ((0, 0), x)):
            expected = torch.stack([module(one) for module, one in zip(several, given, strict=True)])
            found = torch.vmap(call, in_dims=dims)(stacked, x[0] if dims[1] is None else x)
            assert error(found, expected) < 1e-12


@pytest.mark.parametrize("needs", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_forward_differentiation_is_the_circuit_itself(seed: int, needs: bool) -> None:
    """A linear map's derivative; one that is lost in silence would be a zero."""
    circuit, dual = compiled(seed), cast(Any, forward_ad)
    plain, fused = on_both(circuit)
    fused.requires_grad_(needs)
    x, tangent = vectors(circuit, 6), vectors(circuit, 6, seed=8)
    expected = plain(tangent)
    assert error(torch.func.jvp(fused, (x,), (tangent,))[1], expected) < 1e-12
    with forward_ad.dual_level():
        found = dual.unpack_dual(fused(dual.make_dual(x, tangent))).tangent
        assert found is not None, "the tangent was dropped"
        assert error(found, expected) < 1e-12
        with torch.no_grad():
            found = dual.unpack_dual(fused(dual.make_dual(x, tangent))).tangent
        assert found is not None, "the tangent was dropped without gradients"


def test_jacobians_in_both_modes_and_a_second_derivative(mixed: CompiledCircuit) -> None:
    plain, fused = on_both(mixed)
    x, oracle = vectors(mixed), plain.operator().detach()
    assert error(torch.func.jacrev(fused)(x), oracle) < 1e-12
    assert error(torch.func.jacfwd(fused)(x), oracle) < 1e-12
    second = torch.func.hessian(lambda x: fused(x).square().sum())(x)
    assert error(second, 2 * oracle.T @ oracle) < 1e-12


# Repeated differentiation


@pytest.mark.parametrize("name", ["one gate twice", "one gate and its transpose", "a circuit twice", "gates of x"])
def test_gradients_that_can_be_differentiated_again_are_the_same_gradients(name: str) -> None:
    """Tensors that depend on one another, or are the same one, must not be counted twice."""
    files = {
        "one gate twice": file_of("3x3", [{"axes": [0], "name": "m"}, {"axes": [1], "share": "m"}]),
        "one gate and its transpose": file_of(
            "3x3", [{"axes": [0], "name": "m"}, {"axes": [1], "share": "m", "transpose": True}]
        ),
    }
    circuit = compile_circuit(files.get(name, file_of("3x3", [[0, 1], [1]])))
    found = []
    for module in on_both(circuit):
        x = vectors(circuit, 4).requires_grad_()
        wanted = [x, *module.parameters()]
        first = torch.autograd.grad(applied(module, name, x).square().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), wanted)
        once = torch.autograd.grad(applied(module, name, x).square().sum(), wanted)
        assert_close(numbered(first), numbered(once), 1e-11)
        found.append(numbered((*first, *second)))
    assert_close(found[1], found[0], 1e-11)


def applied(module: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    """Return a result that depends on the gates in more ways than one."""
    if name == "a circuit twice":
        return module(torch.tanh(module(x)))  # type: ignore[no-any-return]
    if name == "gates of x":
        tensors = {key: p * x.sum() for key, p in module.named_parameters()}
        return torch.func.functional_call(module, tensors, (x,))  # type: ignore[no-any-return]
    return module(x)  # type: ignore[no-any-return]


def numbered(tensors: Any) -> dict[str, torch.Tensor]:
    return {str(place): tensor for place, tensor in enumerate(tensors)}


CIRCUIT = compile_circuit(file_of("4x4x4", ["all_pairs"]))


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
