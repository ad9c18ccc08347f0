"""What a circuit stores: shapes, counts and names of its tensors, as the state dict lists them."""

import math
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.kinds.initialisers import INITIALISERS, Drawn
from quanta_compiler.kinds.kind import Form, Part
from quanta_compiler.kinds.made import Made


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of the state dict under `gates.`, `[*per, *part.shape]`."""

    key: str
    gate: Gate
    shape: tuple[int, ...]
    part: Part

    @property
    def numbers(self) -> int:
        """Return how many numbers the tensor holds."""
        return math.prod(self.shape)


def matrix_shape(circuit: Circuit, gate: Gate) -> tuple[int, ...]:
    """Return `[*per, rows, columns]`."""
    per = tuple(circuit.legs[leg].size for leg in gate.per)
    return (*per, circuit.size(gate.rows), circuit.size(gate.columns))


def stored_tensors(circuit: Circuit, gate: Gate) -> tuple[Stored, ...]:
    """Return what a gate stores itself: nothing where it shares, or where its kind is fixed."""
    if gate.parameter != gate.name:
        return ()
    *per, rows, columns = matrix_shape(circuit, gate)
    return tuple(
        Stored(gate.name + part.suffix, gate, (*per, *part.shape), part) for part in gate.matrix.stored(rows, columns)
    )


def inner_size(gate: Gate, rows: int, columns: int) -> int | None:
    """Return the columns of the first factor of a gate's matrix, the rows of the second; None where it has none."""
    if gate.form is not Form.FACTORS:
        return None
    return gate.matrix.stored(*((columns, rows) if gate.transpose else (rows, columns)))[0].shape[-1]


def made_matrix(gate: Gate, rows: int, columns: int) -> Made:
    """Return what makes the matrices that a gate reads, the gate itself having `rows` and `columns`."""
    made = gate.matrix.made(*((columns, rows) if gate.transpose else (rows, columns)))
    assert made is not None, f"{gate.kind} gates are no function of what they store"
    return made


def drawing(stored: Stored) -> tuple[str, Drawn]:
    """Return the scheme of one tensor and what it draws: of a low-rank gate `zeros` draws A as it is by default."""
    init = stored.gate.init
    assert init is not None, "a gate that stores numbers has a scheme"
    scheme = stored.part.zeros if init.scheme == "zeros" else init.scheme
    std = init.std if init.std is not None else INITIALISERS[scheme].std or 0.0
    return scheme, Drawn(stored.part.fan_out, stored.part.fan_in, std, is_diagonal=stored.gate.is_diagonal)


def all_stored(circuit: Circuit) -> tuple[Stored, ...]:
    """Return every stored tensor in the order of the file."""
    return tuple(stored for gate in circuit.gates_in_file_order() for stored in stored_tensors(circuit, gate))
