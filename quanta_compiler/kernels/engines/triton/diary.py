"""What the comments of a kernel say: gates by name, and the axes, `name:size`, that every tile runs over."""

import math
from collections.abc import Iterable, Sequence

from quanta_compiler.kernels.engines.triton.tiles import TOKENS, Bits, Order, padded
from quanta_compiler.lowering.table import GateTable, TableEntry

HOW_TO_READ = """\
One program of a kernel carries T tokens through its gates: their state is a tile, which stays in registers. All sizes
of a tile are powers of two; where an axis is shorter, the rest of the tile is zero, and neither read nor written.

  x, y          the input [tokens, in_features] and the result [tokens, out_features]; dy, dx: their gradients
  w0, w1, ...   the matrices of the gates by number, [*per, rows, columns], row-major
  u0, u1, ...   matrices of the same gates, where a second result is subtracted: the initial ones of an adapter
  s0, s1, ...   the states that gates read, e0, e1, ...: the gradients of those that they make; the gradient of a
                gate's matrices is a product of the two, which torch computes
  sums          in place of both, [programs, numbers]: the gradients d0, d1, ... of the gates' matrices, which a program
                sums over its tiles, and torch over the programs
  tokens        how many there are; a program reads and writes none behind the last
  T             tokens of a program; fixed with the other two when a kernel is compiled
  STATE         dtype of matrices and tiles; products are summed in float32 and then rounded to it
  PRECISION     of products where STATE is float32: tf32, or tf32x3, which is as good as float32

Comments give gates by name, axes as name:size, the outermost first; | divides the dimensions of a tile, T are the
tokens. Where an axis stands in two dimensions, "4 of a:8" are four of its places. A product has at least 16 terms:
a smaller gate takes axes from beside it, and its matrix is then repeated along the diagonal of a larger one.
"""


class Diary:
    """The words for the gates and tiles of a table."""

    def __init__(self, table: GateTable) -> None:
        self._table = table

    def gate(self, number: int, pointer: str, *, transposed: bool) -> str:
        """Return what a gate, or its transpose, does to the axes of a state."""
        entry = self._table.entries[number]
        legs = entry.legs
        if entry.matrix is not None and not legs.rows and not legs.columns:
            return f"{_title(entry)}: times {pointer}, a number for each of {self.axes(legs.per)}"
        given, made = (legs.rows, legs.columns) if transposed else (legs.columns, legs.rows)
        step = f"{self.axes(given)} -> {self.axes(made)}"
        if entry.matrix is None:
            return f"{_title(entry)}: {step}, cut or padded with zeros"
        own = f", a matrix of its own for each of {self.axes(legs.per)}" if legs.per else ""
        return f"{_title(entry)}: {step} by {pointer}{' transposed' if transposed else ''}{own}"

    def vector(self, pointer: str, order: Order, numbers: int) -> str:
        """Return what a tensor holds of a token, and how many numbers a vector of another length has."""
        volume = math.prod(self._table.sizes[leg] for leg in order if leg != TOKENS)
        first = (
            f", the first {numbers}" if numbers < volume else f", the first of {numbers}" if numbers > volume else ""
        )
        return f"{pointer}: [{self.axes(order)}]{first}"

    def sum(self, number: int, name: str, groups: Sequence[Sequence[Bits]], parts: int) -> str:
        """Return of which tiles the gradient of a gate is the product, and in how many parts."""
        left, right = map(self.tile, groups)
        return (
            f"{name}, the gradient of {_title(self._table.entries[number])}"
            f"{f' in {parts} parts' if parts > 1 else ''}: {left} transposed times {right}"
        )

    def sums(self, number: int, parts: int) -> str:
        """Return the axes of a gate's gradient in memory, behind its parts."""
        legs = self._table.entries[number].legs
        return f"{f'{parts}, ' if parts > 1 else ''}{self.axes((*legs.per, *legs.rows, *legs.columns))}"

    def axes(self, order: Iterable[int]) -> str:
        """Return axes with their sizes; `1` where there are none."""
        return ", ".join("T" if leg == TOKENS else self._named(leg) for leg in order) or "1"

    def tile(self, groups: Sequence[Bits]) -> str:
        """Return the axes of a tile's dimensions."""
        return f"[{' | '.join(map(self._dimension, groups))}]"

    def _dimension(self, bits: Bits) -> str:
        parts: list[str] = []
        for leg in dict.fromkeys(leg for leg, _ in bits):
            places = 1 << sum(one == leg for one, _ in bits)
            whole = leg == TOKENS or places == padded(self._table.sizes[leg])
            parts.append("T" if leg == TOKENS else self._named(leg) if whole else f"{places} of {self._named(leg)}")
        return ", ".join(parts) or "1"

    def _named(self, leg: int) -> str:
        return f"{self._table.axes[leg]}:{self._table.sizes[leg]}"


def _title(entry: TableEntry) -> str:
    parts = entry.matrix.gate.parts if entry.matrix is not None else ()
    return f"{parts[0].name} to {parts[-1].name}, {len(parts)} gates in one" if parts else entry.name
