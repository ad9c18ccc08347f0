"""The two-design circuit of a `pauli` gate as a circuit of its own, on legs of size 2."""

from quanta_compiler.ir.circuit import Circuit, Gate, Leg
from quanta_compiler.kinds.two_design import TURNS, two_design

ANGLES = "angles"
"""What the circuit's gates call the tensor that holds all angles."""


def two_design_circuit(wires: int, layers: int, kept: int | None, *, transpose: bool) -> Circuit:
    """Return the circuit of an orthogonal 2^q x 2^q matrix, or of its transpose: the gates turned and in reverse.

    Wire 0 is the slowest. Every RY turns by one of the angles of a flat tensor, which all of them share.
    """
    turns = two_design(wires, layers, kept)
    legs = [Leg(f"q{wire}", 2) for wire in range(wires)]
    reached = list(range(wires))
    gates: list[Gate] = []
    for position, turn in enumerate(reversed(turns) if transpose else turns):
        columns = tuple(reached[wire] for wire in turn.wires)
        name = f"ry{turn.angle}" if turn.angle is not None else f"cz{position}"
        if turn.angle is not None:
            reached[turn.wires[0]] = len(legs)
            legs.append(legs[turn.wires[0]])
        gates.append(
            Gate(
                name=name,
                matrix=TURNS[len(turn.wires)],
                columns=columns,
                rows=tuple(reached[wire] for wire in turn.wires),
                per=(),
                position=position,
                parameter=ANGLES if turn.angle is not None else name,
                transpose=transpose and turn.angle is not None,
                angle=turn.angle,
            )
        )
    width = 1 << wires
    return Circuit(ANGLES, width, width, tuple(legs), tuple(range(wires)), tuple(reached), tuple(gates))
