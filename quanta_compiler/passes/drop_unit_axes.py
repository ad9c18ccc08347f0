"""Leave out axes of size 1: their legs carry nothing, and a contraction over one is a product of scalars."""

from dataclasses import replace

from quanta_compiler.ir.circuit import Circuit


def drop_unit_axes(circuit: Circuit) -> Circuit:
    """Take legs of size 1 out of the inputs, the outputs and every gate; matrices keep their shapes."""

    def kept(legs: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(leg for leg in legs if circuit.legs[leg].size > 1)

    return replace(
        circuit,
        inputs=kept(circuit.inputs),
        outputs=kept(circuit.outputs),
        gates=tuple(gate.on_legs(kept) for gate in circuit.gates),
    )
