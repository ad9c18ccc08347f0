"""CircuitSpec -> Circuit: names become legs."""

from collections.abc import Sequence

from quanta_compiler.ir.circuit import Circuit, Gate, Leg
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.spec.circuit_spec import CircuitSpec


def build_circuit(spec: CircuitSpec) -> Circuit:
    """Turn a validated circuit file into a circuit, gates in the order of the file."""
    legs: list[Leg] = []
    reached: dict[str, int] = {}

    def at(axes: Sequence[AxisSize]) -> tuple[int, ...]:
        return tuple(reached[axis.name] for axis in axes)

    def begin(axes: Sequence[AxisSize]) -> tuple[int, ...]:
        for axis in axes:
            reached[axis.name] = len(legs)
            legs.append(Leg(axis.name, axis.size))
        return at(axes)

    inputs = begin(spec.layout)
    gates: dict[str, Gate] = {}
    for position, gate in enumerate(spec.gates):
        per, columns = at(gate.per), at(gate.axes)
        owner = gates[gate.share] if gate.share else None
        gates[gate.name] = Gate(
            name=gate.name,
            matrix=gate.matrix,
            columns=columns,
            rows=columns if gate.matrix.is_diagonal else begin(gate.to),
            per=per,
            position=position,
            parameter=owner.parameter if owner else gate.name,
            transpose=gate.transpose != owner.transpose if owner else False,
            frozen=owner.frozen if owner else gate.frozen,
            across=owner.across if owner else gate.across,
            init=gate.init,
        )
    return Circuit(
        name=spec.name,
        in_features=spec.in_features,
        out_features=spec.out_features,
        legs=tuple(legs),
        inputs=inputs,
        outputs=at(spec.output),
        gates=tuple(gates.values()),
    )
