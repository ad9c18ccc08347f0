"""The invariants of a circuit; passes are checked against them."""

from quanta_compiler.ir.circuit import Circuit, Gate


def verify(circuit: Circuit) -> None:
    """Assert that every gate finds its legs, that legs are made once and used up, and that the outputs remain.

    Raises:
        AssertionError: the circuit is malformed: a mistake of ours, never of a user's file.

    """
    present = set(circuit.inputs)
    made = set(circuit.inputs)
    assert len(present) == len(circuit.inputs), "an input leg stands twice"
    for gate in circuit.gates:
        for part in gate.parts or (gate,):
            _apply(circuit, part, present, made)
    assert present == set(circuit.outputs), f"legs {sorted(present)} remain, outputs are {circuit.outputs}"
    assert len(circuit.outputs) == len(present), "an output leg stands twice"
    positions = [gate.position for gate in circuit.gates_in_file_order()]
    assert len(set(positions)) == len(positions), "two gates have one position"


def _apply(circuit: Circuit, gate: Gate, present: set[int], made: set[int]) -> None:
    touched = gate.columns + gate.per
    assert len(set(touched)) == len(touched), f"gate {gate.name!r} names a leg twice"
    assert present.issuperset(touched), f"gate {gate.name!r} acts on a leg that is not there"
    if gate.is_diagonal:
        assert gate.rows == gate.columns, f"diagonal gate {gate.name!r} changes its legs"
        return
    assert made.isdisjoint(gate.rows), f"gate {gate.name!r} makes a leg again"
    assert all(0 <= leg < len(circuit.legs) for leg in gate.rows), f"gate {gate.name!r} makes an unknown leg"
    present.difference_update(gate.columns)
    present.update(gate.rows)
    made.update(gate.rows)
