"""Put commuting gates into one order, so that files which differ only in it get the same plan."""

from dataclasses import replace

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.columns import gate_columns
from quanta_compiler.kinds.kind import Form


def canonical_order(circuit: Circuit) -> Circuit:
    """Order gates by column, then by the axes that they touch, and number the legs in that order.

    Gates of one column commute: none has to follow another (see `ir/columns.py`).
    """
    columns = {gate.name: column for gate, column in zip(circuit.gates, gate_columns(circuit), strict=True)}
    layout = {circuit.legs[leg].axis: place for place, leg in enumerate(circuit.inputs)}

    def key(gate: Gate) -> tuple[object, ...]:
        names = sorted(circuit.legs[leg].axis for leg in gate.columns + gate.rows + gate.per)
        axes = sorted((layout.get(name, len(layout)), name) for name in names)
        # Slices split the circuit for the planner: those of one column stand together, after the column's matrices.
        return (columns[gate.name], gate.form is Form.RESHAPE, axes, gate.position)

    gates = sorted(circuit.gates, key=key)
    order = list(circuit.inputs)
    for gate in gates:
        order += [leg for leg in gate.rows if leg not in gate.columns]
    # Behind the others: legs within a block, and those of size 1, which an earlier pass took out of the gates.
    order += sorted(set(range(len(circuit.legs))).difference(order))
    new = {leg: number for number, leg in enumerate(order)}

    def renamed(legs: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new[leg] for leg in legs)

    return replace(
        circuit,
        legs=tuple(circuit.legs[leg] for leg in order),
        inputs=renamed(circuit.inputs),
        outputs=renamed(circuit.outputs),
        gates=tuple(gate.on_legs(renamed) for gate in gates),
    )
