"""Rotations on the kernel: their matrices, in every dtype and under what torch does with modules."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import pytest
import torch
from compiled_circuits import saved_bytes
from drawn_kinds import ROTATIONS
from fused_circuits import assert_close, executable_of, gradients, on_both, vectors
from random_circuits import error, file_of, random_file
from rotation_circuits import CIRCUITS, expanded_matrix, file_operator, rotation_circuit, stored_gates

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.nn import FittedCircuit
from quanta_compiler.predict.engines.cpu import prefers
from quanta_compiler.spec import load_spec

CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}
EVERYTHING = file_of(
    "2x4x3x2",
    [
        {"pattern": "two_design", "axes": [0, 3], "layers": 2},
        {"axes": [1, 0], "kind": "pauli", "name": "p"},
        {"axes": [2, 1], "kind": "cz"},
        {"axes": [2], "kind": "pauli", "per": [0]},
        {"axes": [3], "kind": "ry", "per": [1, 2]},
        {"axes": [1, 3], "share": "p", "transpose": True},
        {"axes": [2, 0], "kind": "orthogonal", "map": "cayley", "per": [3]},
        [1, 2],
        {"axes": [0], "kind": "ry", "frozen": True},
    ],
)
"""Blocks with and without `per`, shared and transposed, whole matrices, and dense gates among them."""


@pytest.fixture(scope="module")
def everything() -> CompiledCircuit:
    return compile_circuit(EVERYTHING)


def test_the_circuit_has_everything(everything: CompiledCircuit) -> None:
    _, fused = on_both(everything)
    gates = [entry.matrix.gate for entry in executable_of(fused).table.entries if entry.matrix is not None]
    assert {"block", "pauli", "orthogonal", "dense"} <= {gate.kind for gate in gates}
    parts = [part for gate in gates for part in gate.parts]
    assert any(gate.parts and gate.per for gate in gates)
    assert any(part.kind == "ry" and part.per for part in parts)
    assert any(part.kind == "ry" and part.transpose for part in parts)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("name", [*CIRCUITS, "everything"])
def test_the_kernel_is_the_oracle(name: str, dtype: torch.dtype) -> None:
    circuit = compile_circuit(EVERYTHING) if name == "everything" else rotation_circuit(name)
    _, fused = on_both(circuit, dtype)
    x = vectors(circuit, 9, dtype=dtype)
    assert fused(x).dtype == dtype
    assert error(fused(x), x.double() @ expanded_matrix(fused).T) < CLOSE[dtype]


@pytest.mark.parametrize("seed", range(30))
def test_random_rotations_and_their_gradients_are_the_references(seed: int) -> None:
    circuit = compile_circuit(random_file(seed, kinds=ROTATIONS))
    _, fused = on_both(circuit)
    gates = stored_gates(fused)
    matrix = file_operator(random_file(seed, kinds=ROTATIONS), gates)
    x = vectors(circuit, 5).requires_grad_()
    weights = torch.randn(5, len(matrix), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert error(fused(x), x @ matrix.T) < 1e-12
    names = [name for name, tensor in fused.named_parameters() if tensor.requires_grad]
    wanted = [x, *(gates[name.removeprefix("gates.")] for name in names)]
    expected = torch.autograd.grad(x @ matrix.T, wanted, weights, allow_unused=True, materialize_grads=True)
    for found, one in zip(gradients(fused, x, weights=weights).values(), expected, strict=True):
        # A gate and its transpose in turn depend on nothing: rounding is all that is left of their gradient.
        assert float((found - one).norm()) < 1e-11 * max(1.0, float(one.norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_in_lower_precision(everything: CompiledCircuit, dtype: torch.dtype) -> None:
    plain, _ = on_both(everything)
    _, fused = on_both(everything, dtype)
    plain.load_state_dict({key: tensor.double() for key, tensor in fused.state_dict().items()})
    x = vectors(everything, 20, dtype=dtype)
    expected = gradients(plain, x.double())
    for name, gradient in gradients(fused, x).items():
        assert gradient.dtype == dtype
        assert error(gradient, expected[name]) < 5 * CLOSE[dtype]


@pytest.mark.parametrize(("backend", "recompute"), [("fused", True), ("auto", False), ("torch", True)])
def test_every_way_to_run_computes_the_same(everything: CompiledCircuit, backend: str, recompute: bool) -> None:
    plain, module = on_both(everything, backend=backend, recompute=recompute)
    x = vectors(everything, 3, 4)
    assert error(module(x), plain(x)) < 1e-12
    assert_close(gradients(module, x), gradients(plain, x), 1e-11)
    copy = pickle.loads(pickle.dumps(module))
    assert torch.equal(copy(x), module(x))


def test_autocast(everything: CompiledCircuit) -> None:
    plain, fused = on_both(everything, torch.float32)
    x = vectors(everything, 12, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fused(x)
    assert y.dtype == torch.bfloat16
    assert error(y, plain(x)) < CLOSE[torch.bfloat16]


def test_torch_compile() -> None:
    circuit = compile_circuit(
        file_of("2x2x3", [{"pattern": "two_design", "axes": [0, 1]}, {"axes": [2], "kind": "pauli"}])
    )
    _, fused = on_both(circuit)
    x = vectors(circuit, 6)
    compiled: Any = torch.compile(fused, fullgraph=True, backend="eager")
    found, expected = gradients(compiled, x), gradients(fused, x)
    assert error(compiled(x), fused(x)) < 1e-12
    assert_close({name.removeprefix("_orig_mod."): tensor for name, tensor in found.items()}, expected, 1e-11)


@pytest.mark.slow
def test_export(everything: CompiledCircuit) -> None:
    _, fused = on_both(everything)
    program: Any = torch.export.export(
        fused, (vectors(everything, 6),), dynamic_shapes={"x": {0: torch.export.Dim("n")}}
    )
    assert error(program.module()(vectors(everything, 4)), fused(vectors(everything, 4))) < 1e-12


def test_vmap_over_the_angles(everything: CompiledCircuit) -> None:
    _, fused = on_both(everything)
    names, tensors = zip(*fused.named_parameters(), strict=True)
    several = [torch.stack([tensor.detach(), 2 * tensor.detach()]) for tensor in tensors]
    x = vectors(everything, 3)

    def run(*given: torch.Tensor) -> Any:
        return torch.func.functional_call(fused, dict(zip(names, given, strict=True)), (x,))

    found: Any = torch.vmap(run)(*several)
    assert error(found[1], run(*(tensor[1] for tensor in several))) < 1e-12


def test_only_the_input_and_the_matrices_are_kept() -> None:
    """Those are small, and their number does not depend on the batch."""
    circuit = compile_circuit(file_of([2] * 8, ["two_design"]))
    _, fused = on_both(circuit, torch.float32)
    few, many = (vectors(circuit, tokens, dtype=torch.float32).requires_grad_() for tokens in (10, 1000))
    kept = [saved_bytes(fused, partial(fused, x)) - 4 * x.numel() for x in (few, many)]
    assert kept[0] == kept[1]


def test_a_circuit_that_stores_nothing_takes_any_dtype() -> None:
    spec = load_spec(file_of("2x3x2", [{"pattern": "ring", "kind": "cz"}]))
    plain = compile_circuit(spec).module(backend="torch")
    for dtype in CLOSE:
        x = vectors(compile_circuit(spec), 5, dtype=dtype)
        fused = compile_circuit(spec).module(backend="fused", dtype=dtype)
        assert torch.equal(fused(x), plain.to(dtype)(x))
        fitted = FittedCircuit(spec)
        assert torch.equal(fitted.apply(fitted.draw(0), x, "fused"), fused(x))


@pytest.mark.parametrize(
    ("layout", "gate", "takes_fused"),
    [
        ([2] * 12, {"pattern": "two_design"}, True),
        (4096, {"axes": [0], "kind": "pauli"}, True),
        ("48x64", {"axes": [0], "kind": "pauli"}, True),
        (4096, {"axes": [0], "kind": "pauli", "to": [8]}, False),
        (768, {"axes": [0], "kind": "pauli"}, False),
        ("768x8", {"axes": [0], "kind": "pauli"}, False),
        ("192x8", {"axes": [0], "kind": "pauli"}, True),
        (768, {"axes": [0], "kind": "pauli", "to": [8]}, True),
    ],
)
def test_auto_takes_torch_where_a_whole_matrix_would_be_made(
    layout: Any, gate: dict[str, Any], takes_fused: bool
) -> None:
    _, fused = on_both(compile_circuit(file_of(layout, [gate])))
    assert prefers(executable_of(fused).table, 512) == takes_fused
