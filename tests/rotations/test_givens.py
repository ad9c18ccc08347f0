"""Products of rotations of planes: the default rounds, `ry` on an axis of size 2, and every way to run them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import Mlp, adapted, batch, train
from peft import PeftModel
from plain_rotations import plain_givens
from random_circuits import file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kinds.givens import Givens
from quanta_compiler.nn import fit_circuit
from quanta_compiler.spec import load_spec

PAIRS = [[3, 0], [1, 5], [0, 2], [4, 5], [1, 2], [5, 4], [3, 4], [0, 11]]
FILES: dict[str, dict[str, Any]] = {
    "neighbours": file_of(24, [{"axes": [0], "kind": "givens"}]),
    "pairs": file_of("2x12", [{"axes": [1], "kind": "givens", "pairs": PAIRS, "per": [0]}]),
    "renamed": file_of(
        {"a": 2, "b": 12},
        [
            {"axes": ["b", "a"], "kind": "givens", "to": {"c": 24}, "pairs": [[23, 0], *PAIRS], "name": "one"},
            {"axes": ["c"], "share": "one", "transpose": True},
            {"axes": ["c"], "kind": "givens"},
        ],
    ),
}


def compiled(name: str) -> CompiledCircuit:
    return compile_circuit(FILES[name], tokens=5)


def drawn(circuit: CompiledCircuit, backend: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    module = circuit.module(backend=backend, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def test_neighbours_are_turned_in_two_rounds() -> None:
    made = Givens().made(7, 7)
    assert made.arguments == (7, (range(6), range(1, 7)))
    pairs = ((0, 1), (2, 3), (4, 5), (1, 2), (3, 4), (5, 6))
    assert Givens(pairs).made(7, 7) == made
    written = {"axes": [0], "kind": "givens", "pairs": pairs}
    spec = load_spec(file_of(7, [{"axes": [0], "kind": "givens"}, written]))
    assert [gate.numbers for gate in spec.gates] == [6, 6]


def test_what_has_no_index_in_common_is_one_round() -> None:
    made = Givens(((3, 0), (1, 5), (0, 2), (4, 5), (2, 3))).made(6, 6)
    assert made.arguments == (6, ((3, 0, 1, 5), (0, 2, 4, 5), range(2, 4)))


def test_on_two_indices_it_is_ry() -> None:
    both = [compile_circuit(file_of("2x3", [{"axes": [0], "kind": kind, "per": [1]}])) for kind in ("givens", "ry")]
    one, other = (drawn(circuit, "torch", torch.float64) for circuit in both)
    torch.testing.assert_close(one.operator(), other.operator(), rtol=0, atol=1e-15)  # type: ignore[operator]


def test_at_zero_it_is_the_identity_and_reaches_no_more_than_its_pairs() -> None:
    module = compiled("neighbours").module(backend="torch")
    assert torch.equal(module.operator(), torch.eye(24))  # type: ignore[operator]
    ways = Givens().ways(5, 5)
    plain = plain_givens(5, torch.linspace(0.3, 0.9, 4).numpy(), None)
    assert ways == [[int(row) for row in plain[:, column].nonzero()[0]] for column in range(5)]
    assert Givens(((0, 1),)).ways(2, 2) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_the_kernel_and_the_emitted_file_agree(name: str, dtype: torch.dtype) -> None:
    results = []
    for backend in ("torch", "fused"):
        module = drawn(compiled(name), backend, dtype)
        x = torch.linspace(-1, 1, 5 * 24).view(5, 24).to(dtype).requires_grad_()
        out = module(x)
        assert out.dtype == dtype
        out.square().mean().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in module.parameters())])
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 0.03}[dtype]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FILES)
def test_it_is_exported_and_compiled(name: str) -> None:
    module, x = drawn(compiled(name), "torch"), torch.randn(5, 24)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)), buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for tokens in (5, 2):
        torch.testing.assert_close(loaded(x[:tokens]), module(x[:tokens]))
    whole = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(whole(x), module(x))


def test_many_pairs_stand_on_many_lines() -> None:
    pairs = [[i, (i * 7 + 3) % 97] for i in range(97) if i != (i * 7 + 3) % 97]
    circuit = compile_circuit(file_of(97, [{"axes": [0], "kind": "givens", "pairs": pairs}]))
    assert max(map(len, circuit.source.splitlines()[1:])) <= 120
    drawn(circuit, "torch")(torch.ones(97))


@pytest.mark.parametrize("name", FILES)
def test_trained_merged_saved_and_read(name: str, tmp_path: Path) -> None:
    x = batch()
    assert not fit_circuit(FILES[name], 24, 24).starts_at_zero
    model = adapted(Mlp(), circuit=FILES[name], target_modules=["q_proj"])
    before = model(x)
    train(model, x)
    after = model(x)
    assert float((after - before).detach().norm()) > 1e-3
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(Mlp(), tmp_path)
    torch.testing.assert_close(again(x), after)
    merged = again.merge_and_unload()
    torch.testing.assert_close(merged(x), after, rtol=1e-4, atol=1e-4)
