"""Which entries a gate table has for gates of low rank and for rotations."""

from __future__ import annotations

from typing import Any

import pytest
from random_circuits import file_of

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.lowering.table import TableEntry, lower_table
from quanta_compiler.spec import load_spec


def entries_of(layout: Any, *gates: Any) -> list[TableEntry]:
    return list(lower_table(build_circuit(load_spec(file_of(layout, list(gates))))).entries)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("shape", "rank", "factors"),
    [
        *(((4, 4), 1, "AB"), ((4, 4), 2, ""), ((4, 4), 3, ""), ((5, 4), 2, "AB"), ((4, 5), 2, "AB"), ((4, 5), 3, "")),
        *(((1, 9), 1, ""), ((9, 1), 1, ""), ((2, 2), 1, ""), ((2, 3), 1, "AB"), ((8, 4), 2, "AB"), ((8, 4), 3, "")),
    ],
)
def test_a_low_rank_gate_is_two_entries_where_that_is_cheaper(
    shape: tuple[int, int], rank: int, factors: str, turned: bool
) -> None:
    rows, columns = shape
    low = {"axes": ["x"], "to": {"y": rows}, "kind": "lowrank", "rank": rank, "per": ["p"], "name": "low"}
    gates = [low]
    if turned:
        gates.append(
            {"axes": ["y"], "to": {"z": columns}, "share": "low", "transpose": True, "per": ["p"], "name": "again"}
        )
    entries = entries_of({"p": 3, "x": columns, "s": 2}, *gates)
    last = [entry for entry in entries if entry.name.startswith("again" if turned else "low")]
    assert "".join(entry.matrix.factor for entry in last if entry.matrix) == (factors[::-1] if turned else factors)
    whole, apart = rows * columns, rank * (rows + columns)
    assert sum(entry.flops_per_token for entry in last) == 2 * 3 * 2 * min(whole, apart)


def test_rotations_of_few_axes_stand_in_blocks_of_sixteen() -> None:
    turns = {"pattern": "each", "kind": "ry"}
    first, second, dense, signs = entries_of([2] * 8, turns, [7], {"axes": [0, 7], "kind": "cz"})
    assert [(one.blocks, one.rest, one.rows, one.columns) for one in (first, second)] == [(1, 16, 16, 16)] * 2
    assert (dense.name, signs.name) == ("g8", "g9")
    assert (signs.blocks, signs.rest, signs.rows, signs.columns) == (4, 64, 1, 1)


def test_a_cz_with_a_long_axis_joins_no_block() -> None:
    turns = {"pattern": "each", "kind": "ry", "axes": [0, 1, 2, 3]}
    found = entries_of("2x2x2x2x3000", turns, {"axes": [0, 4], "kind": "cz"}, turns)
    assert [entry.matrix.gate.kind for entry in found if entry.matrix] == ["block", "cz", "ry"]


@pytest.mark.parametrize("gate", [{"axes": [0]}, {"axes": [0, 1]}, {"axes": [1], "layers": 3}])
def test_a_pauli_gate_on_a_power_of_two_is_never_larger_than_its_blocks(gate: dict[str, Any]) -> None:
    found = entries_of("64x32", {**gate, "kind": "pauli"})
    assert {entry.matrix.gate.kind for entry in found if entry.matrix} <= {"block", "ry", "cz"}
    assert all(entry.rows <= 16 and entry.columns <= 16 for entry in found)


@pytest.mark.parametrize(
    "gate",
    [
        {"axes": [0], "kind": "pauli", "per": [1]},
        {"axes": [0], "kind": "pauli", "to": [3]},
        {"axes": [1], "kind": "pauli"},
        {"axes": [0, 1], "kind": "orthogonal"},
    ],
)
def test_other_rotations_are_one_entry(gate: dict[str, Any]) -> None:
    (entry,) = entries_of("8x6", {**gate, "name": "one"})
    assert entry.name == "one"
