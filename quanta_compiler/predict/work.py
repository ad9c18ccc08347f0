"""The arithmetic of one forward pass and of its backward, as a list of what a machine is asked to do.

The FLOPs of a comparison and its predicted times are both read off here, so that they cannot disagree. One multiply-add
is 2 FLOPs; numbers have 4 bytes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from quanta_compiler.lowering.table import GateTable, TableEntry


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product `[batch, rows, inner] @ [batch, inner, columns]`."""

    rows: int
    inner: int
    columns: int
    batch: int = 1
    is_transposed: bool = False
    """The left side is stored transposed: a sum over tokens, as the gradient of a matrix is."""
    is_one_by_one: bool = False
    """The matrices of the batch lie so that torch takes one after the other."""

    @property
    def flops(self) -> int:
        """Return its FLOPs."""
        return 2 * self.batch * self.rows * self.inner * self.columns


@dataclass(frozen=True, slots=True)
class Pass:
    """A walk through memory in order: a copy (no FLOPs), or an elementwise operation."""

    bytes: int
    """Read and written together."""
    flops: int = 0
    inner: int | None = None
    """Where an operand is repeated: the numbers in a row for which both are read in order."""


@dataclass(frozen=True, slots=True)
class Permutation:
    """A copy into another order: the result's dimensions, slowest first, and their strides in the source, in numbers.

    Neighbours that are one stretch of memory on both sides are joined, and no dimension has size 1.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    is_transpose: bool = False
    """The transpose of a matrix, which torch copies in blocks."""
    is_one_by_one: bool = False
    """The result's first dimension is innermost in the source, and copied index by index."""

    flops: ClassVar[int] = 0

    @property
    def numbers(self) -> int:
        """Return how many numbers are moved."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Return the bytes read and written together."""
        return 8 * self.numbers


@dataclass(frozen=True, slots=True)
class MatrixFunction:
    """An exponential of matrices `[batch, rows, rows]`, or the solution of systems with `columns` right-hand sides.

    It is made of products of such matrices, or of what takes as long.
    """

    rows: int
    columns: int
    batch: int
    flops: int
    is_double: bool
    """In float64, which takes twice as long."""


@dataclass(frozen=True, slots=True)
class FusedPass:
    """A gate table run by the kernel on `tokens` vectors; backward recomputes the states, then takes both gradients."""

    table: GateTable
    tokens: int
    backward: bool = False

    @property
    def flops(self) -> int:
        """Return its FLOPs: as many as forward's to take the gradient back, and twice as many where a matrix trains."""
        once = self.tokens * self.table.flops_per_token
        if not self.backward:
            return once
        return 3 * once if any(is_trained(entry) for entry in self.table.entries) else once


def is_trained(entry: TableEntry) -> bool:
    """Return whether an entry's matrix needs a gradient."""
    if entry.matrix is None:
        return False
    gate = entry.matrix.gate
    return any(part.trains for part in gate.parts or (gate,))


Operation = Product | Pass | Permutation | MatrixFunction | FusedPass


@dataclass(frozen=True, slots=True)
class Work:
    """What one batch asks for; a training step is `forward` and `backward`."""

    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]

    @property
    def forward_flops(self) -> int:
        """Return the FLOPs of a forward pass."""
        return sum(operation.flops for operation in self.forward)

    @property
    def step_flops(self) -> int:
        """Return the FLOPs of forward and backward."""
        return self.forward_flops + sum(operation.flops for operation in self.backward)


def joined(parts: Iterable[Work]) -> Work:
    """Return the work of one thing after the other."""
    found = list(parts)
    forward = tuple(one for part in found for one in part.forward)
    return Work(forward, tuple(one for part in reversed(found) for one in part.backward))
