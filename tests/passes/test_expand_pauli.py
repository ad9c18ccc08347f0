"""`pauli` gates written out: what is drawn, that the operator stays, and that a second run changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from circuit_invariants import verify
from compiled_circuits import scaled_module
from drawn_kinds import ROTATIONS
from random_circuits import error, file_of, random_file
from rotation_circuits import CIRCUITS

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.passes.absorb_rotations import absorb_rotations
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.passes.expand_pauli import expand_pauli
from quanta_compiler.spec import load_spec

CASES: list[int | str] = [*range(40), *CIRCUITS]


def file_of_case(case: int | str) -> dict[str, Any]:
    return random_file(case, kinds=ROTATIONS) if isinstance(case, int) else CIRCUITS[case]


def circuit_of(file: dict[str, Any]) -> Circuit:
    return build_circuit(load_spec(file))


def drawn(circuit: Circuit) -> list[str]:
    """Draw gates as `name:columns>rows`, a leg by its axis, and what an RY turns by."""

    def axes(legs: tuple[int, ...]) -> str:
        return " ".join(circuit.legs[leg].axis for leg in legs)

    return [
        f"{gate.name}: {axes(gate.columns)} > {axes(gate.rows)}"
        + ("" if gate.angle is None else f" by {gate.parameter}[{gate.angle}]{'^T' if gate.transpose else ''}")
        for gate in circuit.gates
    ]


def test_a_gate_becomes_its_circuit_on_finer_legs() -> None:
    gates = [
        {"axes": ["a", "b"], "to": {"c": 4}, "kind": "pauli", "name": "p"},
        {"axes": ["c"], "name": "m"},
        {"axes": ["c", "d"], "kind": "cz", "name": "z"},
        {"axes": ["c"], "to": {"e": 4}, "share": "p", "transpose": True, "name": "t"},
    ]
    changed = expand_pauli(circuit_of(file_of({"a": 2, "d": 3, "b": 2}, gates)))
    assert drawn(changed) == [
        "p.ry0: a.0 > a.0 by p[0]",
        "p.ry1: b.0 > b.0 by p[1]",
        "p.cz2: a.0 b.0 > a.0 b.0",
        "p.ry2: a.0 > c.0 by p[2]",
        "p.ry3: b.0 > c.1 by p[3]",
        "m: c.0 c.1 > c.0 c.1",
        "z: c.0 c.1 d > c.0 c.1 d",
        "t.ry3: c.1 > c.1 by p[3]^T",
        "t.ry2: c.0 > c.0 by p[2]^T",
        "t.cz2: c.0 c.1 > c.0 c.1",
        "t.ry1: c.1 > e.1 by p[1]^T",
        "t.ry0: c.0 > e.0 by p[0]^T",
    ]
    assert [changed.legs[leg].axis for leg in changed.inputs] == ["a.0", "d", "b.0"]
    assert [changed.legs[leg].axis for leg in changed.outputs] == ["d", "e.0", "e.1"]


def test_a_wire_that_nothing_turns_goes_through() -> None:
    gate = {"axes": [0], "kind": "pauli", "layers": 0, "rank_parameters": 1, "name": "p"}
    changed = expand_pauli(circuit_of(file_of(8, [gate])))
    assert drawn(changed) == ["p.ry0: 0.0 > 0.0 by p[0]"]
    assert changed.inputs[1:] == changed.outputs[1:]


@pytest.mark.parametrize(
    "gate",
    [
        {"axes": [0], "kind": "pauli", "per": [1]},
        {"axes": [0], "kind": "pauli", "to": [2]},
        {"axes": [1], "kind": "pauli"},
        {"axes": [0], "kind": "orthogonal"},
    ],
)
def test_other_gates_stay(gate: dict[str, Any]) -> None:
    circuit = circuit_of(file_of("4x3", [gate]))
    assert expand_pauli(circuit) is circuit


@pytest.mark.parametrize("case", CASES)
def test_operator_is_unchanged_and_a_second_run_changes_nothing(case: int | str) -> None:
    circuit = circuit_of(file_of_case(case))
    module = scaled_module(compile_circuit(file_of_case(case)))
    tensors = {key.removeprefix("gates."): value for key, value in module.state_dict().items()}
    expected = circuit_operator(circuit, tensors)
    for given in (circuit, drop_unit_axes(circuit)):
        changed = expand_pauli(given)
        verify(changed)
        assert error(circuit_operator(changed, tensors), expected) < 1e-12
        # Beside an axis of size 1, which the planner drops, a gate may stand on bits once another is written out.
        assert given is circuit or expand_pauli(changed) is changed
        in_blocks = absorb_rotations(changed, 1 << 20, 16)
        verify(in_blocks)
        assert error(circuit_operator(in_blocks, tensors), expected) < 1e-12


def test_parts_keep_what_is_said_of_the_gate() -> None:
    frozen = expand_pauli(circuit_of(file_of(4, [{"axes": [0], "kind": "pauli", "frozen": True}, [0]])))
    assert [gate.frozen for gate in frozen.gates if gate.kind == "ry"] == [True] * 4
    assert [gate.position for gate in frozen.gates] == list(range(6))
    assert [gate.angle for gate in frozen.gates] == [0, 1, None, 2, 3, None]
