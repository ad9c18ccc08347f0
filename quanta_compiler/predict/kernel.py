"""The kernel's inner loops counted (kernels/circuit.cpp): the time of a gate table is a sum over what they do.

Tokens go through the table in tiles of 16, and the counts are those of one tile: "lines" are the 64 bytes that hold one
number of all its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quanta_compiler.lowering.table import GateTable, TableEntry
from quanta_compiler.predict.work import is_trained

TILE = 16
"""Tokens that go through the gates together."""
_FEW = 8
"""At most so many tokens that fill no tile go one by one."""
_FEW_SHARE = 0.1
"""What one of them takes of a tile."""
_ROWS, _LINES = 8, 3
"""The block of a product that is kept in registers, as the widest vectors allow."""
_FEW_COLUMNS = 4
"""Up to so many columns a gradient is summed number by number."""
_LANES = 16
_NEAR_NUMBERS = 2**18
"""Matrices of more numbers than this do not stay in the second-level cache beside the state."""

_FRESH_BYTES = 2**25

FEATURES = (
    *("call", "backward_call", "packed", "ends", "multiplied", "loaded", "products", "written", "far"),
    *("summed", "turned", "sums", "few_columns", "fresh"),
)
"""What is counted; a calibration has the seconds of one of each."""


@dataclass(frozen=True, slots=True)
class KernelRates:
    """Seconds of one of each of `FEATURES`, on one thread."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that there is a time for everything that is counted.

        Raises:
            ValueError: there is not.

        """
        if len(self.seconds) != len(FEATURES) or not all(0 <= one < math.inf for one in self.seconds):
            raise ValueError("the kernel has a time for everything that is counted")

    def time(self, counts: Iterable[float]) -> float:
        """Return the seconds of what was counted."""
        return sum(rate * count for rate, count in zip(self.seconds, counts, strict=True))


def kernel_counts(table: GateTable, tokens: int, backward: bool, threads: int = 1) -> tuple[float, ...]:
    """Return how much there is of each of `FEATURES` in a call, for the thread that has most to do."""
    tile = _backward_tile(table) if backward else _forward_tile(table)
    numbers = sum(_matrix_numbers(entry) for entry in table.entries)
    tiles = _tiles(tokens, backward, threads)
    counts = {name: tiles * count for name, count in tile.items()}
    counts["backward_call" if backward else "call"] = 1
    # Backward packs every matrix in both orders, unless tokens are so few that forward packs none.
    counts["packed"] = numbers * (2 if backward else 1 if tokens > _FEW else 0)
    width = table.in_features if backward else table.out_features
    counts["fresh"] = tokens * width if is_fresh(4 * tokens * width) else 0
    return tuple(float(counts.get(name, 0.0)) for name in FEATURES)


def is_fresh(size: int) -> bool:
    """Say whether a result of so many bytes is given anew by the system every time, page by page."""
    return size >= _FRESH_BYTES


def _tiles(tokens: int, backward: bool, threads: int) -> float:
    left = tokens % TILE
    if backward or left > _FEW:
        return math.ceil(math.ceil(tokens / TILE) / threads)
    return math.ceil(tokens // TILE / threads) + _FEW_SHARE * left


def _matrix_numbers(entry: TableEntry) -> int:
    return entry.blocks * entry.rows * entry.columns if entry.matrix is not None else 0


def _forward_tile(table: GateTable) -> dict[str, float]:
    counts: dict[str, float] = {"ends": table.in_features + table.out_features}
    for entry in table.entries:
        _add_product(counts, table, entry, entry.rows, entry.columns)
    return counts


def _backward_tile(table: GateTable) -> dict[str, float]:
    """Count the states computed again, the gradient taken back, and the gradients of the matrices."""
    counts: dict[str, float] = {"ends": 2 * table.in_features + table.out_features}
    trained = [entry for entry in table.entries if is_trained(entry)]
    for entry in table.entries[:-1] if trained else ():
        _add_product(counts, table, entry, entry.rows, entry.columns)
    for entry in table.entries:
        _add_product(counts, table, entry, entry.columns, entry.rows)
    for entry in trained:
        _add_sums(counts, entry)
    return counts


def _add_product(counts: dict[str, float], table: GateTable, entry: TableEntry, rows: int, columns: int) -> None:
    written = entry.blocks * entry.rest * rows
    _add(counts, "written", written)
    if entry.matrix is None:
        return
    groups, row_blocks = math.ceil(entry.rest / _LINES), math.ceil(rows / _ROWS)
    _add(counts, "multiplied", written * columns)
    _add(counts, "loaded", entry.blocks * columns * (groups * rows + row_blocks * entry.rest))
    _add(counts, "products", entry.blocks * groups * row_blocks)
    if sum(_matrix_numbers(one) for one in table.entries) > _NEAR_NUMBERS:
        # One that stays near is read from afar once, a larger one for every block of lines.
        passes = groups if rows * columns > _NEAR_NUMBERS else 1
        _add(counts, "far", passes * entry.blocks * rows * columns)


def _add_sums(counts: dict[str, float], entry: TableEntry) -> None:
    rows, columns, lines = entry.rows, entry.columns, entry.blocks * entry.rest
    if columns <= _FEW_COLUMNS:
        _add(counts, "few_columns", lines * rows * columns)
        return
    wide = _LANES * math.ceil(columns / _LANES)
    _add(counts, "summed", lines * rows * wide)
    _add(counts, "turned", lines * wide)
    depths, panels = entry.blocks * math.ceil(entry.rest / 8), math.ceil(wide / (_LANES * _LINES))
    _add(counts, "sums", depths * panels * math.ceil(rows / _ROWS))


def _add(counts: dict[str, float], name: str, count: float) -> None:
    counts[name] = counts.get(name, 0.0) + count
