"""Circuit -> gate table: what a fused kernel executes, as data that knows no device.

The state of a token is an array of numbers. Every entry of the table reads one state and writes the next:

    next[write_rest[b, s] + write_row[i]] = sum over j of matrix[b, i, j] * state[(b * rest + s) * columns + j]

Offsets are in numbers. Each state is stored in the order that its reader wants, (blocks, rest, columns), so that a gate
reads contiguously whichever axes it acts on, and it is the writes that are scattered: in a kernel that keeps the tokens
innermost, a number is a whole vector and may be written anywhere at the same price. Backward runs the entries in
reverse; a gradient is stored in the order (blocks, rest, rows) of the entry that made the state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import inner_size
from quanta_compiler.kinds.kind import Form
from quanta_compiler.passes.absorb_rotations import absorb_rotations
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.passes.expand_pauli import expand_pauli

_TOKENS = 1 << 30
"""Rotations are composed for many tokens: a table is the same for every batch, and the matrix of a block is small."""
_LARGEST_BLOCK = 16
"""The kernel keeps its states in the cache. Blocks of 8, 32 and 64 were measured to be slower."""
_BLOCK_NUMBERS = 2**12
"""A CZ with a long axis would give a block a matrix for every index of it."""

Walk = tuple[tuple[int, int], ...]
"""Nested loops as (size, stride), the outermost first."""


@dataclass(frozen=True, slots=True)
class MatrixSource:
    """Where an entry's matrices `[blocks, rows, columns]` come from: a gate, or one factor of a low-rank gate.

    The gate may be a block of `ry` and `cz`, whose legs stand in the order `[*per, *rows, *columns]`.
    """

    gate: Gate
    factor: str
    """`B` or `A`; empty for the whole matrix, which of a low-rank gate is B A."""
    sizes: tuple[int, ...]
    """Of the legs that the gate names, by number."""


@dataclass(frozen=True, slots=True)
class StepLegs:
    """The legs of a circuit that an entry reads and makes, by number: (per, rest, columns) to (per, rest, rows)."""

    per: tuple[int, ...]
    rest: tuple[int, ...]
    columns: tuple[int, ...]
    rows: tuple[int, ...]


NamedStep = tuple[str, MatrixSource | None, StepLegs]
"""A step without offsets: what it is called, where its matrices come from, and its legs."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One gate's step from a state to the next; see the module's formula."""

    name: str
    matrix: MatrixSource | None
    """None where columns are only cut or padded with zeros to rows (a `slice`)."""
    legs: StepLegs
    blocks: int
    rest: int
    rows: int
    columns: int
    write_rest: Walk
    """Over (blocks, rest), into the next state."""
    write_row: Walk
    grad_rest: Walk
    """Over (blocks, rest), into the gradient of the state that the entry reads, as its maker stores it."""
    grad_column: Walk

    @property
    def flops_per_token(self) -> int:
        """Return the FLOPs of the matrix product, a multiply-add being two."""
        return 2 * self.blocks * self.rest * self.rows * self.columns if self.matrix is not None else 0


@dataclass(frozen=True, slots=True)
class GateTable:
    """A circuit's entries in order, and how vectors enter and leave.

    The first `in_features` numbers of an input (at most `in_size`) go to the places `read` of the first state, zeros to
    the rest; the output's are at the places 0, 1, ... of the last state, which has `out_size` numbers, zeros behind.
    """

    in_features: int
    out_features: int
    in_size: int
    out_size: int
    read: Walk
    """Over the inputs in order, into the first state."""
    read_grad: Walk
    """Over the outputs in order, into the gradient of the last state."""
    entries: tuple[TableEntry, ...]
    inputs: tuple[int, ...]
    """The legs of the input, in order."""
    outputs: tuple[int, ...]
    sizes: tuple[int, ...]
    """Of all legs, by number."""
    axes: tuple[str, ...]
    """The names of their axes; `r` between the factors of a low-rank gate."""

    @property
    def flops_per_token(self) -> int:
        """Return the FLOPs of all matrix products, a multiply-add being two."""
        return sum(entry.flops_per_token for entry in self.entries)


def offsets(walk: Walk) -> list[int]:
    """Return the offsets that nested loops visit, in order."""
    found = [0]
    for size, stride in walk:
        found = [offset + place * stride for offset in found for place in range(size)]
    return found


@lru_cache(maxsize=32)
def lower_table(circuit: Circuit) -> GateTable:
    """Return the gate table of a circuit; rotations of few axes stand together in blocks."""
    circuit = expand_pauli(drop_unit_axes(circuit))
    circuit = canonical_order(absorb_rotations(circuit, _TOKENS, _LARGEST_BLOCK, _BLOCK_NUMBERS))
    sizes = [leg.size for leg in circuit.legs]
    steps = _steps(circuit, sizes)
    axes = (*(leg.axis for leg in circuit.legs), *["r"] * (len(sizes) - len(circuit.legs)))
    table = table_of(steps, circuit.inputs, circuit.outputs, sizes, axes)
    return replace(table, in_features=circuit.in_features, out_features=circuit.out_features)


def table_of(
    steps: Sequence[NamedStep],
    inputs: Sequence[int],
    outputs: Sequence[int],
    sizes: Sequence[int],
    axes: Sequence[str],
) -> GateTable:
    """Return the table of steps from the legs of an input to those of an output, neither of them cut or padded."""
    # The legs of every state as its reader stores it, and of its gradient as its maker does.
    stored = [*(legs.per + legs.rest + legs.columns for _, _, legs in steps), outputs]
    gradients = [inputs, *(legs.per + legs.rest + legs.rows for _, _, legs in steps)]

    def walk(legs: Sequence[int], layout: Sequence[int]) -> Walk:
        return _walk(legs, layout, sizes)

    entries = tuple(
        TableEntry(
            name=name,
            matrix=matrix,
            legs=legs,
            blocks=_volume(legs.per, sizes),
            rest=_volume(legs.rest, sizes),
            rows=_volume(legs.rows, sizes),
            columns=_volume(legs.columns, sizes),
            write_rest=walk(legs.per + legs.rest, stored[place + 1]),
            write_row=walk(legs.rows, stored[place + 1]),
            grad_rest=walk(legs.per + legs.rest, gradients[place]),
            grad_column=walk(legs.columns, gradients[place]),
        )
        for place, (name, matrix, legs) in enumerate(steps)
    )
    in_size, out_size = _volume(inputs, sizes), _volume(outputs, sizes)
    return GateTable(
        in_features=in_size,
        out_features=out_size,
        in_size=in_size,
        out_size=out_size,
        read=walk(inputs, stored[0]),
        read_grad=walk(outputs, gradients[-1]),
        entries=entries,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        sizes=tuple(sizes),
        axes=tuple(axes),
    )


def _volume(legs: Sequence[int], sizes: Sequence[int]) -> int:
    return math.prod(sizes[leg] for leg in legs)


def _walk(legs: Sequence[int], layout: Sequence[int], sizes: Sequence[int]) -> Walk:
    """Return the loops over `legs` into a layout, neighbours that are one stretch of memory joined."""
    loops: list[tuple[int, int]] = []
    for leg in legs:
        if sizes[leg] == 1:
            continue  # The leg between the factors of a low-rank gate may be the only one left of size 1.
        stride = _volume(layout[layout.index(leg) + 1 :], sizes)
        if loops and loops[-1][1] == stride * sizes[leg]:
            loops[-1] = (loops[-1][0] * sizes[leg], stride)
        else:
            loops.append((sizes[leg], stride))
    return tuple(loops)


def _steps(circuit: Circuit, sizes: list[int]) -> list[NamedStep]:
    """Return the gates as steps without offsets; a low-rank gate may be two, joined by a leg added to `sizes`."""
    present = list(circuit.inputs)
    of_legs = tuple(sizes)
    steps: list[NamedStep] = []

    def step(name: str, matrix: MatrixSource | None, gate: Gate, columns: Sequence[int], rows: Sequence[int]) -> None:
        per = gate.per + (gate.columns if gate.is_diagonal else ())
        rest = tuple(leg for leg in present if leg not in per and leg not in columns)
        steps.append((name, matrix, StepLegs(per, rest, tuple(columns), tuple(rows))))
        # What is made goes where the foremost of what is read has been, so that the order of the axes is kept.
        place = min(map(present.index, columns), default=len(present))
        present[:] = [leg for leg in present if leg not in columns]
        present[place:place] = rows

    for gate in circuit.gates:
        if gate.is_diagonal:
            step(gate.name, MatrixSource(gate, "", of_legs), gate, (), ())
        elif gate.form is Form.RESHAPE:
            step(gate.name, None, gate, gate.columns, gate.rows)
        elif (inner := _cheap_inner_size(gate, sizes)) is not None:
            sizes.append(inner)
            bond = (len(sizes) - 1,)
            # The factors of a transposed share change places: (B A)^T = A^T B^T.
            first, second = ("B", "A") if gate.transpose else ("A", "B")
            step(f"{gate.name}.{first}", MatrixSource(gate, first, of_legs), gate, gate.columns, bond)
            step(f"{gate.name}.{second}", MatrixSource(gate, second, of_legs), gate, bond, gate.rows)
        else:
            step(gate.name, MatrixSource(gate, "", of_legs), gate, gate.columns, gate.rows)
    return steps


def _cheap_inner_size(gate: Gate, sizes: Sequence[int]) -> int | None:
    """Return the rank of factors that are cheaper applied one after the other; None where the product is, or is all."""
    rows, columns = _volume(gate.rows, sizes), _volume(gate.columns, sizes)
    inner = inner_size(gate, rows, columns)
    return inner if inner is not None and inner * (rows + columns) < rows * columns else None
