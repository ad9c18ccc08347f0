"""From a file's names to legs, what is stored for them, and the network that is published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from circuit_invariants import verify
from compiled_circuits import compiled
from random_circuits import file_of

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Leg
from quanta_compiler.ir.network import apply_network, gate_legs, operator_network
from quanta_compiler.ir.parameters import all_stored, matrix_shape
from quanta_compiler.planner.published import einsum_equation
from quanta_compiler.spec import load_spec

SEEDS = range(60)


def circuit_of(layout: Any, gates: list[Any], **keys: Any) -> Circuit:
    return build_circuit(load_spec(file_of(layout, gates, **keys)))


def test_a_gate_ends_legs_and_begins_others() -> None:
    circuit = circuit_of("4x3x2", [[2, 0], {"axes": [1], "to": {1: 5, "new": 7}}, {"axes": ["new", 1], "to": {}}])
    assert circuit.legs == (
        *(Leg("0", 4), Leg("1", 3), Leg("2", 2), Leg("2", 2), Leg("0", 4), Leg("1", 5), Leg("new", 7)),
    )
    assert circuit.inputs == (0, 1, 2)
    assert circuit.outputs == (4, 3)
    assert [(gate.columns, gate.rows) for gate in circuit.gates] == [((2, 0), (3, 4)), ((1,), (5, 6)), ((6, 5), ())]
    assert (circuit.in_size, circuit.out_size, circuit.in_features, circuit.out_features) == (24, 8, 24, 8)


def test_per_and_diagonal_let_legs_pass() -> None:
    circuit = circuit_of("4x3x2", [{"axes": [0], "per": "rest"}, {"axes": [2, 1], "kind": "diagonal", "per": [0]}])
    first, second = circuit.gates
    assert (first.per, first.columns, first.rows) == ((1, 2), (0,), (3,))
    assert (second.per, second.columns, second.rows) == ((3,), (2, 1), (2, 1))
    assert circuit.outputs == (3, 1, 2)
    assert matrix_shape(circuit, first) == (3, 2, 4, 4)
    assert matrix_shape(circuit, second) == (4, 6, 6)
    assert gate_legs(first) == (1, 2, 3, 0)
    assert gate_legs(second) == (3, 2, 1)


def test_shares_of_shares_find_the_owner_and_count_turns() -> None:
    gates = [
        {"axes": [0], "to": [3], "frozen": True, "name": "m"},
        {"axes": [0], "share": "m", "transpose": True, "to": [2], "name": "t"},
        {"axes": [0], "share": "t", "transpose": True, "to": [3], "name": "back"},
        {"axes": [0], "share": "back", "transpose": True, "to": [2], "name": "again"},
    ]
    circuit = circuit_of(2, gates)
    assert [gate.parameter for gate in circuit.gates] == ["m"] * 4
    assert [gate.transpose for gate in circuit.gates] == [False, True, False, True]
    assert all(gate.frozen for gate in circuit.gates)
    assert [stored.key for stored in all_stored(circuit)] == ["m"]


def test_an_axis_that_is_made_again_is_a_new_one_and_comes_last() -> None:
    gates = [{"axes": ["a"], "to": {}}, {"axes": ["b"], "to": {"b": 2, "a": 4}}]
    circuit = circuit_of({"a": 2, "b": 3, "c": 5}, gates)
    assert [circuit.legs[leg] for leg in circuit.outputs] == [Leg("b", 2), Leg("c", 5), Leg("a", 4)]


@pytest.mark.parametrize("seed", SEEDS)
def test_built_circuits_are_well_formed(seed: int) -> None:
    circuit = compiled(seed).circuit
    verify(circuit)
    assert [gate.position for gate in circuit.gates] == list(range(len(circuit.gates)))
    assert circuit.gates_in_file_order() == circuit.gates


BROKEN = {
    "gate on a leg that is gone": lambda c: replace(
        c, gates=(c.gates[0], replace(c.gates[1], columns=c.gates[0].columns))
    ),
    "leg made twice": lambda c: replace(c, gates=(c.gates[0], replace(c.gates[1], rows=c.gates[0].rows))),
    "leg named twice": lambda c: replace(c, gates=(replace(c.gates[0], per=c.gates[0].columns), c.gates[1])),
    "output missing": lambda c: replace(c, outputs=c.outputs[:1]),
    "output twice": lambda c: replace(c, outputs=(*c.outputs, c.outputs[0])),
    "input twice": lambda c: replace(c, inputs=(*c.inputs, c.inputs[0])),
    "unknown leg": lambda c: replace(c, legs=c.legs[:-1]),
    "one position": lambda c: replace(c, gates=(c.gates[0], replace(c.gates[1], position=0))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_verify_refuses(name: str) -> None:
    circuit = circuit_of("2x3", [[0, 1], [1]])
    verify(circuit)
    with pytest.raises(AssertionError):
        verify(BROKEN[name](circuit))


def test_published_equations() -> None:
    circuit = circuit_of("2x3x4", [[0], {"axes": [2], "kind": "diagonal"}], output=[1, 0, 2])
    assert einsum_equation(apply_network(circuit, 5)) == "abcd,eb,d->aced"
    assert apply_network(circuit, 5).shapes() == ((5, 2, 3, 4), (2, 2), (4,))
    # The legs of axes 1 and 2 would stand twice: their output sides are tied to the inputs by identities.
    assert einsum_equation(operator_network(circuit)) == "ab,c,de,fc->dafbec"
    assert operator_network(circuit).shapes() == ((2, 2), (4,), (3, 3), (4, 4))
    assert [operand.name for operand in operator_network(circuit).operands] == ["g0", "g1", "eye", "eye"]
