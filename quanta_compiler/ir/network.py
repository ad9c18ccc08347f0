"""The tensor network of a circuit under either boundary condition, before anything is merged.

*Apply* has the batch of input vectors as its first operand; in the *operator* the input legs stay open. This is the
network that a report publishes as an einsum; the planner works on finer leaves of it (see `planner/assembly.py`).
"""

from dataclasses import dataclass

from quanta_compiler.ir.circuit import Circuit, Gate

INPUT = "input"
EYE = "eye"


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of the network: its name in the report and its legs, slowest first."""

    name: str
    legs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """Operands over numbered legs, contracted to the legs `output`; `sizes` is indexed by leg."""

    operands: tuple[Operand, ...]
    output: tuple[int, ...]
    sizes: tuple[int, ...]

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shape of every operand."""
        return tuple(tuple(self.sizes[leg] for leg in operand.legs) for operand in self.operands)


def gate_legs(gate: Gate) -> tuple[int, ...]:
    """Return a gate's legs as an operand: `[*per, *to, *axes]`, one that is diagonal `[*per, *axes]`."""
    if gate.is_diagonal:
        return gate.per + gate.columns
    return gate.per + gate.rows + gate.columns


def apply_network(circuit: Circuit, tokens: int) -> Network:
    """Return the network of `tokens` input vectors passing the circuit: `[tokens, *inputs] -> [tokens, *outputs]`."""
    batch = len(circuit.legs)
    operands = [Operand(INPUT, (batch, *circuit.inputs))]
    operands += [Operand(gate.name, gate_legs(gate)) for gate in circuit.gates_in_file_order()]
    sizes = (*(leg.size for leg in circuit.legs), tokens)
    return Network(tuple(operands), (batch, *circuit.outputs), sizes)


def operator_network(circuit: Circuit) -> Network:
    """Return the network of the circuit's matrix: `[*outputs, *inputs]`.

    A leg that no gate contracts would stand twice in the output; its output side becomes a leg of its own, tied to the
    input side by an identity matrix.
    """
    operands = [Operand(gate.name, gate_legs(gate)) for gate in circuit.gates_in_file_order()]
    sizes = [leg.size for leg in circuit.legs]
    output: list[int] = []
    for leg in circuit.outputs:
        if leg not in circuit.inputs:
            output.append(leg)
            continue
        sizes.append(sizes[leg])
        operands.append(Operand(EYE, (len(sizes) - 1, leg)))
        output.append(len(sizes) - 1)
    return Network(tuple(operands), (*output, *circuit.inputs), tuple(sizes))
