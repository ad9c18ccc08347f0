"""The two forms of a backward pass, and which moves fewer numbers. No torch here: the command line prints both."""

from quanta_compiler.lowering.table import GateTable

SEGMENT = 2
"""Entries of a segment of the backward pass: their states and sums are in registers together."""


def is_cheaper_in_segments(table: GateTable, keep: tuple[int, ...], *, minus: bool) -> bool:
    """Say whether segments, which sum the gradients of gates, move fewer numbers."""
    return bool(keep) and moved_in_segments(table, minus=minus) < moved_in_storing(table, keep)


def moved_in_segments(table: GateTable, *, minus: bool) -> int:
    """Return the numbers of a token that segments move beside input and output; of a difference with those of S."""
    inner = (table.entries[number] for number in starts(table))
    # The state in front of a segment is stored and read; so is its gradient, by the one before.
    between = sum(4 * entry.blocks * entry.rest * entry.columns for entry in inner)
    return between + (2 * (table.in_features + table.out_features) if minus else 0)


def starts(table: GateTable) -> tuple[int, ...]:
    """Return the entries at which segments begin behind the first one, where all of them fit."""
    return tuple(range(len(table.entries) - SEGMENT, 0, -SEGMENT))[::-1]


def moved_in_storing(table: GateTable, keep: tuple[int, ...]) -> int:
    """Return the numbers of a token that the stored backward moves: each state and gradient out and in again."""
    entries = (table.entries[number] for number in keep)
    return sum(2 * entry.blocks * entry.rest * (entry.rows + entry.columns) for entry in entries)
