"""Which backend is expected to be the faster one on the CPU: what `auto` means.

Both costs are counted in FLOPs at the rate of a large matrix product, per token. The constants were fitted to the
measurements of tests/benchmarks/choice.py, which shows how often they are right and what it costs where they are not.
"""

from __future__ import annotations

from quanta_compiler.lowering.table import GateTable, TableEntry

_PERMUTED = 200
"""What torch pays for a number that a copy brings into another order."""
_ELEMENTWISE = 60
"""What torch pays for a number of an elementwise product."""
_TORCH_CALL = 1_000_000
"""What torch pays for a step, whatever its size."""
_KERNEL_CALL = 6_000_000
"""What the kernel pays for a call: the operator's dispatch, packing, waking the threads."""
_WRITTEN = 20
"""What the kernel pays for a number that it writes, and for one that enters or leaves."""
_SHORT = 150
"""What it pays beside that for a number, over the columns of the matrix: loops of a few steps take their time."""
_FEW_LINES = 4
"""Fewer lines than this leave registers unused, and a matrix is read again for every tile."""
_LARGE_MATRIX = 2**15
"""Past this a matrix that few lines share comes from far for every tile."""

_LARGE_WHOLE = 2**12
"""Up to so many numbers the matrix of a `pauli` gate takes little time to make."""


def prefers_fused(table: GateTable, tokens: int) -> bool:
    """Say whether the kernel is expected to be faster than the emitted file on batches of `tokens`.

    It is not where it needs the whole matrix of a `pauli` gate, which torch applies by its structure: unless that is
    small.
    """
    if any(_is_large_whole(entry) for entry in table.entries):
        return False
    return predicted_ratio(table, tokens) < 1


def _is_large_whole(entry: TableEntry) -> bool:
    is_pauli = entry.matrix is not None and entry.matrix.gate.kind == "pauli"
    return is_pauli and entry.rows * entry.columns > _LARGE_WHOLE


def predicted_ratio(table: GateTable, tokens: int) -> float:
    """Return the expected time of the kernel over that of the emitted file, for forward and backward alike."""
    return _fused_cost(table, tokens) / _torch_cost(table, tokens)


def _fused_cost(table: GateTable, tokens: int) -> float:
    ends = _WRITTEN * (table.in_features + table.out_features)
    return ends + _KERNEL_CALL / tokens + sum(map(_fused_entry, table.entries))


def _fused_entry(entry: TableEntry) -> float:
    written = entry.blocks * entry.rest * entry.rows
    slowness = 1.1
    if entry.rest < _FEW_LINES:
        slowness = 2.5 if entry.rows * entry.columns > _LARGE_MATRIX else 1.3
    return slowness * entry.flops_per_token + written * (_WRITTEN + _SHORT / entry.columns)


def _torch_cost(table: GateTable, tokens: int) -> float:
    return sum(map(_torch_entry, table.entries)) + len(table.entries) * _TORCH_CALL / tokens


def _torch_entry(entry: TableEntry) -> float:
    written = entry.blocks * entry.rest * entry.rows
    if entry.rows == entry.columns == 1:
        return _ELEMENTWISE * written
    # A gate on the whole state needs no other order.
    permuted = 0 if entry.blocks * entry.rest == 1 else _PERMUTED * written
    return entry.flops_per_token + permuted
