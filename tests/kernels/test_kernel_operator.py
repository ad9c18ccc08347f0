"""The registered operators as torch judges them: opcheck, gradcheck, torch.compile, torch.export."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, counted_flops, scaled_module
from fused_circuits import assert_close, gradients, matrices_of, on_both, vectors
from mixed_circuit import MIXED
from random_circuits import error, file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.operator import APPLY, APPLY_BACKWARD

SMALL = {
    "pairs": file_of("3x2x2", ["all_pairs"]),
    "low rank": file_of("3x4", [{"axes": [0, 1], "kind": "lowrank", "rank": 2, "to": {"a": 5}}, {"axes": ["a"]}]),
    "low rank, whole": file_of("3x2", [{"axes": [0], "kind": "lowrank", "rank": 3}, {"axes": [1], "kind": "diagonal"}]),
    "shared": file_of(
        "3x3x2",
        [{"axes": [0], "name": "m"}, {"axes": [1], "share": "m", "transpose": True}, {"axes": [0], "per": [2, 1]}],
    ),
    "turned factors": file_of(
        "4x4",
        [
            {"axes": [0, 1], "kind": "lowrank", "rank": 1, "to": {"z": 6}, "name": "m"},
            {"axes": ["z"], "share": "m", "transpose": True, "to": [16]},
        ],
    ),
    "something of everything": MIXED,
    "moved alone": file_of("2x3", [{"axes": [0], "kind": "slice", "to": [3]}], in_features=5),
}
SMALL = {key: {**file, "name": "operator"} for key, file in SMALL.items()}
KEPT = dict.fromkeys(("torch", "fused", "auto"), False) | {"recomputed": True}
"""Backends, and whether they recompute."""


def module_of(circuit: CompiledCircuit, name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Return the emitted module, and the same on a backend of KEPT."""
    return on_both(circuit, dtype, "torch" if name == "recomputed" else name, KEPT[name])


@pytest.fixture(autouse=True)
def automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` take the kernel for these circuits, which are small; and forget what was compiled before."""
    monkeypatch.setattr(cpu, "prefers", lambda *_: True)
    torch.compiler.reset()


# opcheck, gradcheck


def test_opcheck(mixed: CompiledCircuit) -> None:
    module = scaled_module(mixed)
    text, matrices = str(module.circuit), matrices_of(module)
    leaves = [m.clone().requires_grad_(place % 2 == 0) for place, m in enumerate(matrices)]
    torch.library.opcheck(APPLY, (vectors(mixed, 2, 3).requires_grad_(), leaves, text))
    grad, needed = torch.randn(2, 3, 9, dtype=torch.float64), [True] * (1 + len(matrices))
    torch.library.opcheck(APPLY_BACKWARD, (grad, vectors(mixed, 2, 3), matrices, text, needed))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_schemas_and_fake_tensors(name: str, dtype: torch.dtype) -> None:
    """All of opcheck but tracing, which takes a second a case."""
    circuit = compile_circuit(SMALL[name])
    module = scaled_module(circuit, dtype)
    text, matrices = str(module.circuit), [m.to(dtype) for m in matrices_of(module)]
    utils: dict[str, Any] = {"test_utils": ("test_schema", "test_autograd_registration", "test_faketensor")}
    for x in (
        vectors(circuit, dtype=dtype),
        vectors(circuit, 0, 3, dtype=dtype),
        vectors(circuit, 3, 2, dtype=dtype).transpose(0, 1),
    ):
        leaves = [m.clone().requires_grad_(place % 2 == 0) for place, m in enumerate(matrices)]
        torch.library.opcheck(APPLY, (x.clone().requires_grad_(), leaves, text), **utils)
        torch.library.opcheck(APPLY, (x, [m.to(torch.float64) for m in matrices], text), **utils)
        grad = torch.randn(*x.shape[:-1], circuit.spec.out_features).to(dtype)
        needed = [True] * (1 + len(matrices))
        torch.library.opcheck(APPLY_BACKWARD, (grad, x, matrices, text, needed), **utils)
        torch.library.opcheck(APPLY_BACKWARD, (grad, None, matrices, text, [True] + [False] * len(matrices)), **utils)
        torch.library.opcheck(APPLY_BACKWARD, (grad, x, matrices, text, [False, *needed[1:]]), **utils)


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck_once_and_twice(name: str, tokens: int) -> None:
    circuit = compile_circuit(SMALL[name])
    module: Any = scaled_module(circuit).requires_grad_()
    fused: Any = circuit.module(dtype=torch.float64, backend="fused")
    names = [name for name, _ in module.named_parameters()]
    x, tensors = vectors(circuit, tokens).requires_grad_(), [*module.parameters()]

    def run(x: torch.Tensor, *tensors: torch.Tensor) -> Any:
        return torch.func.functional_call(fused, dict(zip(names, tensors, strict=True)), (x,))

    # And once more with gates that need no gradient, of which nothing is kept.
    for gates in (tensors, [tensor.detach() for tensor in tensors]):
        assert torch.autograd.gradcheck(run, (x, *gates), fast_mode=True)
        assert torch.autograd.gradgradcheck(run, (x, *gates), fast_mode=True)


@pytest.mark.parametrize("name", SMALL)
def test_gradcheck_in_forward_mode(name: str) -> None:
    circuit = compile_circuit(SMALL[name])
    fused: Any = circuit.module(dtype=torch.float64, backend="fused")
    x = vectors(circuit, 5).requires_grad_()
    for needs in (True, False):
        fused.requires_grad_(needs)
        forward: dict[str, Any] = {"check_forward_ad": True, "check_backward_ad": False}
        assert torch.autograd.gradcheck(fused, (x,), fast_mode=True, **forward)


@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_second_gradients_are_those_of_the_emitted_module(seed: int) -> None:
    plain, fused = on_both(compiled(seed))
    found = []
    for module in (fused, plain):
        x = vectors(compiled(seed), 11).requires_grad_()
        wanted = [x, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
        loss = module(x).square().sum()
        first = torch.autograd.grad(loss, wanted, create_graph=True, materialize_grads=True)
        norm = torch.stack([gradient.square().sum() for gradient in first]).sum()
        second = torch.autograd.grad(norm, wanted, materialize_grads=True) if norm.requires_grad else ()
        found.append({str(place): gradient for place, gradient in enumerate(second)})
    assert_close(found[0], found[1], 1e-9)


# torch.compile


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["fused", "auto", "recomputed"])
def test_compile_whole_forward_and_backward(name: str, dynamic: bool) -> None:
    circuit = compile_circuit(SMALL["low rank, whole"])
    plain, module = module_of(circuit, name)
    fast: Any = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for lead in ((5,), (9,)):
        x = vectors(circuit, *lead)
        expected = gradients(plain, x)
        x.requires_grad_()
        weights = torch.randn(*lead, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        wanted = {"x": x} | {key: p for key, p in module.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(fast(x), list(wanted.values()), weights)
        assert_close(dict(zip(wanted, found, strict=True)), expected, 1e-11)
        assert error(fast(x), plain(x)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_compile_by_inductor_beside_other_operations(name: str) -> None:
    circuit = compile_circuit(file_of("4x3x2", ["all_pairs"]))
    plain, module = module_of(circuit, name, torch.float32)

    def between(circuit: Any, x: torch.Tensor) -> Any:
        return torch.tanh(circuit(torch.relu(x)) * 2)

    fast: Any = torch.compile(between, fullgraph=True)
    x, other = (vectors(circuit, 6, dtype=torch.float32).requires_grad_() for _ in range(2))
    fast(module, x).sum().backward()
    between(plain, other).sum().backward()
    assert error(fast(module, x), between(plain, other)) < 1e-5
    assert_close(named_gradients(module, x), named_gradients(plain, other), 1e-5)


def named_gradients(module: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in [("x", x), *module.named_parameters()] if p.grad is not None}


@pytest.mark.parametrize("name", ["fused", "auto", "recomputed"])
def test_compile_under_autocast(name: str) -> None:
    circuit = compile_circuit(SMALL["low rank, whole"])
    _, module = module_of(circuit, name, torch.float32)
    fast: Any = torch.compile(module, fullgraph=True, backend="eager")
    x = vectors(circuit, 6, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = module(x), fast(x)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    # Outside of it the same compiled module is in float32 again.
    assert fast(x).dtype == torch.float32


def test_a_compiled_circuit_is_one_operator(mixed: CompiledCircuit) -> None:
    seen: list[Any] = []

    def keep(graph: Any, _: Any) -> Any:
        seen.append(graph)
        return graph.forward

    module: Any = mixed.module(backend="fused")
    fast: Any = torch.compile(module, fullgraph=True, backend=keep)
    fast(torch.randn(3, 20))
    (graph,) = seen
    assert [node.target for node in graph.graph.nodes if "quanta" in str(node.target)] == [APPLY]


# torch.export


@pytest.mark.parametrize("name", ["fused", "auto", "recomputed"])
def test_export_with_a_dynamic_batch(name: str) -> None:
    circuit = compile_circuit(SMALL["low rank, whole"])
    plain, module = module_of(circuit, name)
    batch = {"x": {0: torch.export.Dim("n")}}
    exported = torch.export.export(module, (vectors(circuit, 4),), dynamic_shapes=batch)
    stream = io.BytesIO()
    torch.export.save(exported, stream)
    stream.seek(0)
    for program in (exported, torch.export.load(stream)):
        for tokens in (9, 2, 40):
            x = vectors(circuit, tokens)
            assert error(program.module()(x), plain(x)) < 1e-12


def test_a_module_on_the_meta_device_gives_shapes(mixed: CompiledCircuit) -> None:
    for backend in ("fused", "auto"):
        module = mixed.module(device="meta", backend=backend)
        x = torch.empty(2, 3, 20, device="meta", requires_grad=True)
        y = module(x)
        assert (y.shape, y.dtype, y.device.type) == ((2, 3, 9), torch.float32, "meta")
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape
        copied = copy.deepcopy(module)
        assert copied(x).shape == y.shape


CIRCUIT = compile_circuit(file_of("4x4x4", ["all_pairs"]))


def test_flops_are_counted() -> None:
    plain, fused = on_both(CIRCUIT)
    x = vectors(CIRCUIT, 3).requires_grad_()
    assert counted_flops(lambda: fused(x)) == counted_flops(lambda: plain(x))
    y = fused(x)
    # The states again, the gradient passed on, those of the matrices.
    assert counted_flops(lambda: y.sum().backward()) == 3 * counted_flops(lambda: plain(x))
