"""The engine `triton` before anything runs: the bytes and FLOPs of each kernel that it launches.

A kernel takes the longest of what its bytes take, what its FLOPs take, and a launch. Forward is one kernel, as it is
where a circuit fits a device; it reads the input and the matrices and writes the output. Backward computes the states
again and stores each for the gradient of its matrix; takes the gradient back and stores it likewise; then each gradient
is a product of two stored tensors. This is how kernels/engines/triton/backward.py does it. Its segments, which move
fewer numbers, and circuits cut into several kernels are left out: which of them fit is known only from compiling.
"""

import math
from collections.abc import Iterable

from quanta_compiler.lowering.table import GateTable, TableEntry
from quanta_compiler.predict.work import is_trained

FEATURES = ("launch", "moved", "multiplied")
"""What is counted of a kernel: itself, the numbers that it reads and writes, its FLOPs on padded axes."""
_LEAST = 16
"""The inner dimension of the matrix units: a product with fewer columns is widened to it."""

Counts = tuple[float, float, float]


def counts(table: GateTable, tokens: int, backward: bool, threads: int = 1) -> tuple[Counts, ...]:
    """Return how much there is of each of `FEATURES` in each kernel of a call."""
    entries = table.entries
    matrices = sum(map(_matrix_numbers, entries))
    ends = tokens * (table.in_features + table.out_features)
    if not backward:
        return ((1.0, float(ends + matrices), float(tokens * sum(map(_multiplied, _padded(table, entries))))),)
    kept = [entry for entry in entries if is_trained(entry)]
    stored = tokens * sum(entry.blocks * entry.rest * entry.columns for entry in kept)
    gradients = tokens * sum(entry.blocks * entry.rest * entry.rows for entry in kept)
    flow = (1.0, float(ends + gradients + matrices), float(tokens * sum(map(_multiplied, _padded(table, entries)))))
    if not kept:
        return (flow,)
    before = entries[: max(place for place, entry in enumerate(entries) if is_trained(entry))]
    work = float(tokens * sum(map(_multiplied, _padded(table, before))))
    again = (1.0, float(tokens * table.in_features + stored + matrices), work)
    return (again, flow, *(_gradient(entry, tokens) for entry in kept))


def prefers(table: GateTable, tokens: int) -> None:
    """Return None: what is faster is measured there, or seen from the predicted times."""


def _gradient(entry: TableEntry, tokens: int) -> Counts:
    lines = tokens * entry.blocks * entry.rest
    numbers = lines * (entry.rows + entry.columns) + _matrix_numbers(entry)
    return 1.0, float(numbers), float(2 * lines * entry.rows * entry.columns)


def _matrix_numbers(entry: TableEntry) -> int:
    return 0 if entry.matrix is None else entry.blocks * entry.rows * entry.columns


Sides = tuple[int, int, int]
"""Lines of a token, rows and columns of a product, with their padding."""


def _padded(table: GateTable, entries: Iterable[TableEntry]) -> Iterable[Sides]:
    """Yield the products of entries as a kernel computes them: every axis is padded to a power of two."""
    for entry in entries:
        if entry.matrix is None:
            continue
        legs = entry.legs
        groups = (legs.per + legs.rest, legs.rows, legs.columns)
        lines, rows, columns = (math.prod(_power(table.sizes[leg]) for leg in group) for group in groups)
        yield lines, rows, columns if columns == 1 else max(_LEAST, columns)


def _multiplied(sides: Sides) -> int:
    return 2 * math.prod(sides)


def _power(size: int) -> int:
    """Return the power of two that holds `size`."""
    return 1 << (size - 1).bit_length()
