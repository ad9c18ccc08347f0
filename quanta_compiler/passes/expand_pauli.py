"""Write square `pauli` gates on a power of two out as their RY and CZ, or as their blocks, on legs of size 2."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from quanta_compiler.ir.circuit import Circuit, Gate, Leg
from quanta_compiler.ir.two_design import ANGLES, two_design_circuit
from quanta_compiler.kinds.kind import Form
from quanta_compiler.kinds.two_design import is_power_of_two


def expand_pauli(circuit: Circuit) -> Circuit:
    """Replace square `pauli` gates on 2^q indices, without `per`, by their `ry` and `cz`, their legs by legs of size 2.

    A leg becomes finer in every gate that names it, in the same place and the slowest bit first, so nothing moves. An
    `ry` turns by its place in the tensor that the `pauli` gate reads. Blocks are made after this pass.
    """

    def two_design(gate: Gate) -> Circuit:
        size, layers, kept = gate.matrix.two_design(circuit.size(gate.rows), circuit.size(gate.columns))
        return two_design_circuit(size.bit_length() - 1, layers, kept, transpose=gate.transpose)

    return write_out(circuit, [gate for gate in circuit.gates if is_two_design(circuit, gate)], two_design)


def write_out(circuit: Circuit, gates: Sequence[Gate], inner: Callable[[Gate], Circuit]) -> Circuit:
    """Replace some gates, all of them two-designs, by the circuits on legs of size 2 that `inner` returns."""
    return _Expansion(circuit, gates, inner).result() if gates else circuit


def is_two_design(circuit: Circuit, gate: Gate) -> bool:
    """Return whether a gate is a square `pauli` gate on 2^q indices, without `per`."""
    size = circuit.size(gate.columns)
    # Of one index there is no circuit, only a one.
    is_square = 1 < size == circuit.size(gate.rows)
    return gate.form is Form.CIRCUIT and not gate.per and is_square and is_power_of_two(size)


class _Expansion:
    """The finer circuit so far: its legs, and which of them stand for a leg of the given circuit."""

    def __init__(self, circuit: Circuit, expanded: Sequence[Gate], inner: Callable[[Gate], Circuit]) -> None:
        self.circuit = circuit
        self.split = {leg for gate in expanded for leg in gate.columns + gate.rows}
        self.legs: list[Leg] = []
        self.finer: dict[int, tuple[int, ...]] = {}
        self.parts = {gate.name: inner(gate) for gate in expanded}
        self.position: dict[str, int] = {}
        total = 0
        for gate in circuit.gates_in_file_order():
            self.position[gate.name] = total
            total += len(self.parts[gate.name].gates) if gate.name in self.parts else 1

    def result(self) -> Circuit:
        circuit = self.circuit
        inputs = self._named(circuit.inputs)
        gates = [part for gate in circuit.gates for part in self._written(gate)]
        outputs = self._named(circuit.outputs)
        return replace(circuit, legs=tuple(self.legs), inputs=inputs, outputs=outputs, gates=tuple(gates))

    def _pieces(self, leg: int) -> list[Leg]:
        """Return a leg as it is from now on: the bits of one that is split, which of size 1 are none."""
        whole = self.circuit.legs[leg]
        if leg not in self.split:
            return [whole]
        return [Leg(f"{whole.axis}.{bit}", 2) for bit in range(whole.size.bit_length() - 1)]

    def _named(self, legs: tuple[int, ...]) -> tuple[int, ...]:
        """Return the legs that stand for some; those that nothing has named yet begin here."""
        for leg in legs:
            if leg not in self.finer:
                pieces = self._pieces(leg)
                self.finer[leg] = tuple(range(len(self.legs), len(self.legs) + len(pieces)))
                self.legs += pieces
        return tuple(piece for leg in legs for piece in self.finer[leg])

    def _written(self, gate: Gate) -> list[Gate]:
        position = self.position[gate.name]
        if gate.name not in self.parts:
            return [replace(gate.on_legs(self._named), position=position)]
        inner, columns = self.parts[gate.name], self._named(gate.columns)
        wires = dict(zip(inner.inputs, columns, strict=True))
        pieces = [piece for leg in gate.rows for piece in self._pieces(leg)]
        labels = {inner.legs[wire].axis: self.legs[leg] for wire, leg in wires.items()}
        last = dict(zip(inner.outputs, pieces, strict=True))
        for number, leg in enumerate(inner.legs):
            # A wire that nothing turns goes through: the leg behind the gate is the one in front of it.
            if number not in wires:
                wires[number] = len(self.legs)
                self.legs.append(last.get(number, labels[leg.axis]))
        behind = iter(wires[leg] for leg in inner.outputs)
        for row in gate.rows:
            self.finer[row] = tuple(next(behind) for _ in self._pieces(row))
        return [_on_legs(part, gate, wires, position) for part in inner.gates]


def _on_legs(part: Gate, gate: Gate, wires: dict[int, int], position: int) -> Gate:
    name = f"{gate.name}.{part.name}"
    takes_angles = part.parameter == ANGLES
    return replace(
        part.on_legs(lambda legs: tuple(wires[leg] for leg in legs)),
        name=name,
        position=position + part.position,
        parameter=gate.parameter if takes_angles else name,
        frozen=gate.frozen and takes_angles,
        block_of=None if part.block is None else gate,
    )
