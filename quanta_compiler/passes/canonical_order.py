"""Put commuting gates into one order, so that files which differ only in it get the same plan."""

from __future__ import annotations

from dataclasses import replace

from quanta_compiler.ir.circuit import Circuit, Gate


def canonical_order(circuit: Circuit) -> Circuit:
    """Order gates by level, then by the axes that they touch, and number the legs in that order.

    A gate's level is one more than the highest level among the gates that it has to follow: those that made its legs,
    and those that a leg passed through (`per`, diagonal) before this gate contracts it.
    """
    levels = _levels(circuit)
    places = {leg: place for place, leg in enumerate(circuit.inputs)}
    layout = {circuit.legs[leg].axis: place for leg, place in places.items()}

    def key(gate: Gate) -> tuple[object, ...]:
        names = sorted(circuit.legs[leg].axis for leg in gate.columns + gate.rows + gate.per)
        axes = sorted((layout.get(name, len(layout)), name) for name in names)
        # Slices split the circuit for the planner: those of one level stand together, after the level's matrices.
        return (levels[gate.name], gate.kind == "slice", axes, gate.position)

    return _renumber(replace(circuit, gates=tuple(sorted(circuit.gates, key=key))))


def _levels(circuit: Circuit) -> dict[str, int]:
    made = dict.fromkeys(circuit.inputs, 0)
    passed = dict(made)
    levels: dict[str, int] = {}
    for gate in circuit.gates:
        through = gate.per + (gate.columns if gate.rows == gate.columns else ())
        ended = tuple(leg for leg in gate.columns if leg not in through)
        level = 1 + max([0, *(made[leg] for leg in through), *(passed[leg] for leg in ended)])
        levels[gate.name] = level
        for leg in through:
            passed[leg] = max(passed[leg], level)
        for leg in gate.rows:
            if leg not in through:
                made[leg] = passed[leg] = level
    return levels


def _renumber(circuit: Circuit) -> Circuit:
    order = list(circuit.inputs)
    for gate in circuit.gates:
        order += [leg for leg in gate.rows if leg not in gate.columns]
    # Legs of size 1 that an earlier pass took out of the gates keep their labels, behind the others.
    order += sorted(set(range(len(circuit.legs))).difference(order))
    new = {leg: number for number, leg in enumerate(order)}

    def renamed(legs: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new[leg] for leg in legs)

    gates = tuple(
        replace(gate, columns=renamed(gate.columns), rows=renamed(gate.rows), per=renamed(gate.per))
        for gate in circuit.gates
    )
    return replace(
        circuit,
        legs=tuple(circuit.legs[leg] for leg in order),
        inputs=renamed(circuit.inputs),
        outputs=renamed(circuit.outputs),
        gates=gates,
    )
