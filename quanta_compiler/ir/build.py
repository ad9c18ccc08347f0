"""CircuitSpec -> Circuit: names become legs."""

from quanta_compiler.ir.circuit import Circuit, Gate, Leg
from quanta_compiler.ir.verify import verify
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec


class _Builder:
    """The legs made so far, and the one that every present axis has reached."""

    def __init__(self, layout: tuple[AxisSize, ...]) -> None:
        self.legs: list[Leg] = []
        self.reached: dict[str, int] = {}
        self.inputs = tuple(self.begin(axis) for axis in layout)

    def begin(self, axis: AxisSize) -> int:
        self.legs.append(Leg(axis.name, axis.size))
        self.reached[axis.name] = len(self.legs) - 1
        return len(self.legs) - 1

    def at(self, axes: tuple[AxisSize, ...]) -> tuple[int, ...]:
        return tuple(self.reached[axis.name] for axis in axes)

    def apply(self, gate: GateSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the gate's columns, rows and per legs; the axes move on to their new legs."""
        per, columns = self.at(gate.per), self.at(gate.axes)
        if gate.matrix.is_diagonal:
            return columns, columns, per
        for axis in gate.axes:
            del self.reached[axis.name]
        return columns, tuple(self.begin(axis) for axis in gate.to), per


def build_circuit(spec: CircuitSpec) -> Circuit:
    """Turn a validated circuit file into a circuit, gates in the order of the file."""
    builder = _Builder(spec.layout)
    gates: dict[str, Gate] = {}
    for position, gate in enumerate(spec.gates):
        columns, rows, per = builder.apply(gate)
        owner = gates[gate.share] if gate.share else None
        gates[gate.name] = Gate(
            name=gate.name,
            matrix=gate.matrix,
            columns=columns,
            rows=rows,
            per=per,
            position=position,
            parameter=owner.parameter if owner else gate.name,
            transpose=gate.transpose != owner.transpose if owner else False,
            frozen=owner.frozen if owner else gate.frozen,
            init=gate.init,
        )
    circuit = Circuit(
        name=spec.name,
        in_features=spec.in_features,
        out_features=spec.out_features,
        legs=tuple(builder.legs),
        inputs=builder.inputs,
        outputs=builder.at(spec.output),
        gates=tuple(gates.values()),
    )
    verify(circuit)
    return circuit
