"""The gate table: run by the words of its docstring it is the circuit, forward and backward; what its walks obey."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled_circuits import compiled
from drawn_kinds import STORED
from mixed_circuit import MIXED
from plain_oracle import plain_operator
from quick_seeds import every_second
from random_circuits import commuting_file, error, file_of, kinds_of, random_file, scale_gates, shuffled
from rotation_circuits import CIRCUITS
from table_interpreter import backward, forward, matrices_of, matrix_of, parameter_gradients, places

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.lowering.table import GateTable, TableEntry, Walk, lower_table, offsets
from quanta_compiler.oracle.reference import apply_gates
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.spec import load_spec, to_dict

SEEDS = range(160)
FILES = {
    "one number": file_of(1, [[0]]),
    "axes of size 1": file_of(
        "1x3x1x4",
        [[0, 1], {"axes": [2], "per": [1]}, {"axes": [0, 3], "kind": "diagonal"}, {"axes": [3, 2], "to": [2, 1]}],
    ),
    "axes of size 1 that come and go": file_of(4, [{"axes": [0], "to": {0: 4, "u": 1}}, {"axes": ["u"], "to": {}}]),
    "all axes removed": file_of("3x4", [{"axes": [0], "to": {}}, {"axes": [1], "to": {}}]),
    "all axes cut": file_of("3x2", [{"axes": [0, 1], "to": {}, "kind": "slice"}]),
    "made from nothing": file_of(1, [{"axes": [0], "to": {"a": 5}}]),
    "per rest": file_of("4x3x2", [{"axes": [0], "per": "rest"}, {"axes": [2], "per": [1, 0]}]),
    "diagonal alone": file_of("4x3", [{"axes": [1, 0], "kind": "diagonal"}]),
    "diagonal per the rest": file_of("4x3x2", [{"axes": [2, 0], "kind": "diagonal", "per": "rest"}]),
    "transposed shares": file_of(
        "6x2x5",
        [
            {"axes": [0, 1], "to": {"z": 5}, "per": [2], "name": "m"},
            {"axes": ["z"], "share": "m", "per": [2], "transpose": True, "to": {"p": 4, "q": 3}, "name": "t"},
            {"axes": ["q", "p"], "share": "t", "per": [2], "transpose": True, "to": [5, 1]},
        ],
    ),
    "transposed shares of low rank": file_of(
        "6x4x3",
        [
            {"axes": [0, 1], "kind": "lowrank", "rank": 2, "per": [2], "to": {"z": 5}, "name": "apart"},
            {"axes": ["z"], "share": "apart", "transpose": True, "per": [2], "to": {"p": 8, "q": 3}},
            {"axes": ["q"], "kind": "lowrank", "rank": 3, "to": {"q": 2}, "name": "whole"},
            {"axes": ["q"], "share": "whole", "transpose": True, "to": [3]},
        ],
    ),
    "shared diagonals": file_of(
        "4x3x4", [{"axes": [0], "kind": "diagonal", "name": "d"}, {"axes": [2], "share": "d", "transpose": True}]
    ),
    "rank one": file_of("4x3", [{"axes": [0, 1], "kind": "lowrank", "rank": 1}]),
    "padded at both ends": file_of("4x3", [[1, 0]], in_features=10, out_features=15, output=[1, 0]),
    "truncated at both ends": file_of("4x3", [[1, 0]], in_features=14, out_features=7, output=[1, 0]),
    "axes cut and padded": file_of(
        "4x3x2",
        [
            {"axes": [1, 0], "kind": "slice", "to": {"a": 5}},
            {"axes": ["a", 2], "kind": "slice", "to": {"b": 3, "c": 4}},
        ],
        output=["c", "b"],
    ),
    "something of everything": MIXED,
}
ROTATIONS = {f"rotation {name}": to_dict(load_spec(file)) for name, file in CIRCUITS.items()}
PLAIN: list[int | str] = [seed for seed in SEEDS if set(kinds_of(random_file(seed))) <= set(STORED)]
PLAIN += FILES
"""Circuits without rotations, every gate of which is an entry of its own, or two."""
CASES: list[int | str] = [*SEEDS, *FILES, *ROTATIONS]
LONG = {136}
"""Seeds that are slow where a table is gone through number by number: the largest state has 17280 of them."""
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def name_of(case: int | str | Path) -> str:
    return case.stem if isinstance(case, Path) else str(case)


def file_of_case(name: int | str) -> dict[str, Any]:
    """Return a random file by its seed, or one of FILES or ROTATIONS."""
    return random_file(name) if isinstance(name, int) else {**FILES, **ROTATIONS}[name]


def circuit_of(file: dict[str, Any] | Path) -> Circuit:
    return build_circuit(load_spec(file))


@cache
def circuit_of_case(name: int | str | Path) -> Circuit:
    """Return the circuit of a case, or of a file of examples, built once for all tests."""
    return circuit_of(name if isinstance(name, Path) else file_of_case(name))


@cache
def table_of_case(name: int | str | Path) -> GateTable:
    """Return the table of a case, or of a file of examples, made once for all tests."""
    return lower_table(circuit_of_case(name))


def drawn_tensors(circuit: Circuit) -> dict[str, torch.Tensor]:
    """Return well-scaled numbers for everything that a circuit stores."""
    generator = torch.Generator().manual_seed(0)
    return {
        stored.key: torch.randn(stored.shape, generator=generator, dtype=torch.float64) / math.sqrt(stored.part.fan_in)
        for stored in all_stored(circuit)
    }


@pytest.mark.parametrize("name", every_second(CASES, LONG))
def test_the_table_is_the_oracle_forward_and_its_transpose_backward(name: int | str) -> None:
    circuit, table = circuit_of_case(name), table_of_case(name)
    tensors = drawn_tensors(circuit)
    numbers = {f"gates.{key}": tensor.numpy() for key, tensor in tensors.items()}
    expected = torch.from_numpy(plain_operator(file_of_case(name), numbers))
    matrices = matrices_of(table, tensors)
    applied, _ = forward(table, matrices, np.eye(circuit.in_features))
    turned, _ = backward(table, matrices, np.eye(circuit.out_features))
    assert error(torch.from_numpy(applied.T), expected) < 1e-11
    assert error(torch.from_numpy(turned), expected) < 1e-11


@pytest.mark.parametrize("name", every_second(CASES, LONG))
def test_gradients_of_inputs_and_gates_are_those_of_the_module(name: int | str) -> None:
    circuit = compiled(name) if isinstance(name, int) else compile_circuit(file_of_case(name))
    module = scale_gates(circuit.module(dtype=torch.float64, backend="torch"))
    tensors = {key.removeprefix("gates."): tensor for key, tensor in module.state_dict(keep_vars=True).items()}
    assert_does_the_same(circuit.circuit, tensors, module)


@pytest.mark.parametrize(
    "file",
    # The reference makes matrices as wide as the layer for these, angle by angle.
    [pytest.param(file, id=file.stem, marks=[pytest.mark.slow] * ("peft" in file.stem)) for file in EXAMPLES],
)
def test_examples_and_their_gradients_are_those_of_the_reference(file: Path) -> None:
    circuit = circuit_of(file)
    tensors = drawn_tensors(circuit)
    assert_does_the_same(circuit, tensors, lambda x: apply_gates(circuit, tensors, x))


def assert_does_the_same(
    circuit: Circuit, tensors: dict[str, torch.Tensor], apply: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Compare the table with a function of vectors and with autograd through it to all tensors, frozen ones too."""
    for tensor in tensors.values():
        tensor.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, circuit.in_features, generator=generator, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(3, circuit.out_features, generator=generator, dtype=torch.float64)
    y = apply(x)
    expected = [torch.zeros_like(tensor) for tensor in (x, *tensors.values())]
    if y.requires_grad:
        expected = list(torch.autograd.grad(y, [x, *tensors.values()], dy, materialize_grads=True))

    table = lower_table(circuit)
    matrices = matrices_of(table, tensors)
    applied, states = forward(table, matrices, x.detach().numpy())
    turned, gradients = backward(table, matrices, dy.numpy())
    of_tensors = parameter_gradients(table, tensors, states, gradients).values()
    assert error(torch.from_numpy(applied), y) < 1e-11
    for mine, theirs in zip([torch.from_numpy(turned), *of_tensors], expected, strict=True):
        assert error(mine, theirs, 1e-3) < 1e-11


# What the walks obey.


@pytest.mark.parametrize("name", [*every_second(CASES, LONG), *EXAMPLES], ids=name_of)
def test_walks_cover_every_place_once(name: int | str | Path) -> None:
    table = table_of_case(name)
    assert covers([table.read], table.in_size)
    assert covers([table.read_grad], table.out_size)
    state = table.in_size
    for entry in table.entries:
        stretches, made = entry.blocks * entry.rest, entry.blocks * entry.rest * entry.rows
        assert stretches * entry.columns == state
        assert [len(places(walk)) for walk in (entry.write_rest, entry.grad_rest)] == [stretches] * 2
        assert [len(places(walk)) for walk in (entry.write_row, entry.grad_column)] == [entry.rows, entry.columns]
        assert covers([entry.write_rest, entry.write_row], made)
        assert covers([entry.grad_rest, entry.grad_column], state)
        state = made
    assert state == table.out_size


def covers(walks: list[Walk], size: int) -> bool:
    """Return whether the sums of walks are 0, 1, ... size - 1 in some order, by loops as few as can be."""
    for walk in walks:
        assert offsets(walk) == places(walk).tolist()
        assert all(2 <= number <= number * stride <= size for number, stride in walk)
        assert all(outer != number * stride for (_, outer), (number, stride) in itertools.pairwise(walk))
    return sorted(map(sum, itertools.product(*map(offsets, walks)))) == list(range(size))


@pytest.mark.parametrize("name", [*every_second(CASES, LONG), *EXAMPLES], ids=name_of)
def test_writing_is_a_permutation_of_the_loops(name: int | str | Path) -> None:
    """A product `[blocks, rest, rows]` is the next state once its loops are brought into the order of their strides."""
    table = table_of_case(name)
    for entry in table.entries:
        for rest, last in ((entry.write_rest, entry.write_row), (entry.grad_rest, entry.grad_column)):
            loops = rest + last
            numbers = np.arange(math.prod(size for size, _ in loops))
            assert len({stride for _, stride in loops}) == len(loops)
            order = sorted(range(len(loops)), key=lambda loop: -loops[loop][1])
            moved = numbers.reshape([size for size, _ in loops]).transpose(order).reshape(-1)
            written = np.empty_like(numbers)
            written[offsets(loops)] = numbers
            assert offsets(loops) == [one + other for one in offsets(rest) for other in offsets(last)]
            assert (moved == written).all()


@pytest.mark.parametrize("name", every_second(CASES))
def test_flops_are_two_for_every_number_of_the_matrices_and_index_of_the_rest(name: int | str) -> None:
    circuit, table = circuit_of_case(name), table_of_case(name)
    tensors = drawn_tensors(circuit)
    for entry in table.entries:
        matrix = matrix_of(entry, tensors)
        assert matrix.shape == (entry.blocks, entry.rows, entry.columns)
        assert entry.flops_per_token == (0 if entry.matrix is None else 2 * matrix.numel() * entry.rest)
    assert table.flops_per_token == sum(entry.flops_per_token for entry in table.entries)


# Which entries there are.


@pytest.mark.parametrize("name", every_second(PLAIN))
def test_entries_are_the_gates_in_canonical_order(name: int | str) -> None:
    expected: list[str] = []
    ordered = canonical_order(drop_unit_axes(circuit_of_case(name)))
    for gate in ordered.gates:
        rows, columns = ordered.size(gate.rows), ordered.size(gate.columns)
        is_apart = gate.matrix.data().get("rank", math.inf) * (rows + columns) < rows * columns
        factors = ("B", "A") if gate.transpose else ("A", "B")
        expected += [f"{gate.name}.{factor}" for factor in factors] if is_apart else [gate.name]
    assert [entry.name for entry in table_of_case(name).entries] == expected


@pytest.mark.parametrize("seed", range(20))
def test_files_that_differ_in_the_order_of_commuting_gates_give_one_table(seed: int) -> None:
    draw = random.Random(seed)
    file = commuting_file(draw)
    tables = [placeless(lower_table(circuit_of(one))) for one in (file, shuffled(file, draw), shuffled(file, draw))]
    assert tables[0] == tables[1] == tables[2]


def placeless(table: GateTable) -> GateTable:
    """Return a table without the gates' places in the file."""

    def without_place(entry: TableEntry) -> TableEntry:
        if entry.matrix is None:
            return entry
        return replace(entry, matrix=replace(entry.matrix, gate=replace(entry.matrix.gate, position=0)))

    return replace(table, entries=tuple(map(without_place, table.entries)))


@pytest.mark.parametrize("name", every_second(CASES))
def test_the_table_of_a_file_is_always_the_same(name: int | str) -> None:
    circuit, table = circuit_of(file_of_case(name)), table_of_case(name)
    assert lower_table(circuit) == table
    assert lower_table(canonical_order(drop_unit_axes(circuit))) == table


def test_the_circuits_use_everything() -> None:
    tables = [table_of_case(name) for name in CASES]
    entries = [entry for table in tables for entry in table.entries]
    gates = [(entry.matrix.gate, entry.matrix.factor) for entry in entries if entry.matrix]
    kinds = {"dense", "lowrank", "diagonal", "constant", "block", "ry", "cz", "orthogonal", "givens", "pauli"}
    assert {gate.kind for gate, _ in gates} == kinds
    assert any(gate.per for gate, _ in gates if gate.kind == "block")
    assert {(gate.transpose, factor) for gate, factor in gates if gate.kind == "lowrank"} == {
        (turned, factor) for turned in (False, True) for factor in ("", "A", "B")
    }
    assert any(entry.matrix is None for entry in entries)
    assert any(gate.per and gate.kind == "diagonal" for gate, _ in gates)
    assert any(gate.per and gate.transpose for gate, _ in gates)
    assert {np.sign(table.in_size - table.in_features) for table in tables} == {-1, 0, 1}
    assert {np.sign(table.out_features - table.out_size) for table in tables} == {-1, 0, 1}
