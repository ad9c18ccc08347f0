"""The engine `cpu` before anything runs: what its loops have to do, and whether it is faster than the emitted file.

The time of a gate table is a sum over what the kernel's inner loops do (kernels/engines/cpu/circuit.cpp). Tokens go
through the table in tiles of 16, and the counts are those of one tile: "lines" are the 64 bytes that hold one number of
all its tokens. The choice is made by fewer figures, which no calibration is needed for.
"""

import math
from collections import Counter

from quanta_compiler.kinds.kind import Form
from quanta_compiler.lowering.table import GateTable, TableEntry
from quanta_compiler.lowering.turnings import SHORT, turned_numbers, turnings
from quanta_compiler.predict.work import is_trained

TILE = 16
"""Tokens that go through the gates together."""
_FEW = 8
"""At most this many tokens that fill no tile go one by one."""
_FEW_SHARE = 0.1
"""What one of them takes of a tile."""
_ROWS, _LINES = 8, 3
"""The block of a product that is kept in registers, as the widest vectors allow."""
_FEW_COLUMNS = 4
"""Up to this many columns a gradient is summed number by number."""
_LANES = 16
_NEAR_NUMBERS = 2**18
"""Matrices of more numbers than this do not stay in the second-level cache beside the state."""

_FRESH_BYTES = 2**25

FEATURES = (
    *("call", "backward_call", "packed", "ends", "multiplied", "loaded", "products", "written", "far"),
    *("summed", "turned", "sums", "few_columns", "fresh"),
)
"""What is counted; a calibration has the seconds of one of each."""


def counts(table: GateTable, tokens: int, backward: bool, threads: int = 1) -> tuple[float, ...]:
    """Return how much there is of each of `FEATURES` in a call, for the thread that has most to do."""
    numbers = sum(_matrix_numbers(entry) for entry in table.entries)
    tiles = _tiles(tokens, backward, threads)
    found: dict[str, float] = {name: tiles * count for name, count in _tile(table, backward).items()}
    found["backward_call" if backward else "call"] = 1
    # Backward packs every matrix in both orders, unless tokens are so few that forward packs none.
    found["packed"] = numbers * (2 if backward else 1 if tokens > _FEW else 0)
    width = table.in_features if backward else table.out_features
    found["fresh"] = tokens * width if is_fresh(4 * tokens * width) else 0
    return tuple(float(found.get(name, 0.0)) for name in FEATURES)


def is_fresh(size: int) -> bool:
    """Say whether a result of `size` bytes is given anew by the system every time, page by page."""
    return size >= _FRESH_BYTES


def _tiles(tokens: int, backward: bool, threads: int) -> float:
    left = tokens % TILE
    if backward or left > _FEW:
        return math.ceil(math.ceil(tokens / TILE) / threads)
    return math.ceil(tokens // TILE / threads) + _FEW_SHARE * left


def _matrix_numbers(entry: TableEntry) -> int:
    return entry.blocks * entry.rows * entry.columns if entry.matrix is not None else 0


def _tile(table: GateTable, backward: bool) -> Counter[str]:
    """Count a tile; backward computes the states again, takes the gradient back, and takes those of the matrices."""
    counts = Counter(ends=(1 + backward) * table.in_features + table.out_features)
    trained = [entry for entry in table.entries if is_trained(entry)]
    states = table.entries
    if backward:
        states = table.entries[:-1] if trained else ()
    for entry in states:
        _add_product(counts, table, entry, entry.rows, entry.columns)
    if backward:
        for entry in table.entries:
            _add_product(counts, table, entry, entry.columns, entry.rows)
        for entry in trained:
            _add_sums(counts, entry)
    return counts


def _add_product(counts: Counter[str], table: GateTable, entry: TableEntry, rows: int, columns: int) -> None:
    written = entry.blocks * entry.rest * rows
    counts["written"] += written
    if entry.matrix is None:
        return
    groups, row_blocks = math.ceil(entry.rest / _LINES), math.ceil(rows / _ROWS)
    counts["multiplied"] += written * columns
    counts["loaded"] += entry.blocks * columns * (groups * rows + row_blocks * entry.rest)
    counts["products"] += entry.blocks * groups * row_blocks
    if sum(_matrix_numbers(one) for one in table.entries) > _NEAR_NUMBERS:
        # One that stays near is read from afar once, a larger one for every block of lines.
        passes = groups if rows * columns > _NEAR_NUMBERS else 1
        counts["far"] += passes * entry.blocks * rows * columns


def _add_sums(counts: Counter[str], entry: TableEntry) -> None:
    rows, columns, lines = entry.rows, entry.columns, entry.blocks * entry.rest
    if columns <= _FEW_COLUMNS:
        counts["few_columns"] += lines * rows * columns
        return
    wide = _LANES * math.ceil(columns / _LANES)
    counts["summed"] += lines * rows * wide
    counts["turned"] += lines * wide
    depths, panels = entry.blocks * math.ceil(entry.rest / 8), math.ceil(wide / (_LANES * _LINES))
    counts["sums"] += depths * panels * math.ceil(rows / _ROWS)


# Which backend is expected to be the faster one: what `auto` means on the CPU.
#
# Both costs are counted in FLOPs at the rate of a large matrix product, per token. The constants were fitted to the
# measurements of tests/benchmarks/choice.py, which shows how often they are right and what it costs where they are not.

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
"""Up to this many numbers the matrix of a `pauli` gate takes little time to make."""
_TURNED = 15
"""What the kernel pays for a number that is turned, where it makes few columns of such a matrix."""


def prefers(table: GateTable, tokens: int) -> bool:
    """Say whether the kernel is expected to be faster than the emitted file on batches of `tokens`.

    It is not where it needs the whole matrix of a `pauli` gate, which torch applies by its structure: unless that is
    small, or has few columns, which the kernel makes in less time.
    """
    wholes = [entry for entry in table.entries if _is_pauli(entry) and entry.rows * entry.columns > _LARGE_WHOLE]
    return all(_turned(entry) <= SHORT for entry in wholes) and predicted_ratio(table, tokens) < 1


def _is_pauli(entry: TableEntry) -> bool:
    return entry.matrix is not None and entry.matrix.gate.form is Form.CIRCUIT


def _turned(entry: TableEntry) -> int:
    return turned_numbers(*_alike(entry), min(entry.rows, entry.columns))


def _alike(entry: TableEntry) -> tuple[int, int, int | None]:
    assert entry.matrix is not None
    return entry.matrix.gate.matrix.two_design(entry.rows, entry.columns)


def predicted_ratio(table: GateTable, tokens: int) -> float:
    """Return the expected time of the kernel over that of the emitted file, for forward and backward alike."""
    ends = _WRITTEN * (table.in_features + table.out_features)
    paulis = [entry for entry in table.entries if _is_pauli(entry)]
    once = _KERNEL_CALL + sum(_TURNED * entry.blocks * _turned(entry) for entry in paulis)
    fused = ends + once / tokens + sum(map(_fused_entry, table.entries))
    # Of the blocks that make a matrix by torch every rotation is a call.
    calls = len(table.entries) + sum(len(turnings(*_alike(entry))) for entry in paulis)
    return fused / (sum(map(_torch_entry, table.entries)) + calls * _TORCH_CALL / tokens)


def _fused_entry(entry: TableEntry) -> float:
    written = entry.blocks * entry.rest * entry.rows
    slowness = 1.1
    if entry.rest < _FEW_LINES:
        slowness = 2.5 if entry.rows * entry.columns > _LARGE_MATRIX else 1.3
    return slowness * entry.flops_per_token + written * (_WRITTEN + _SHORT / entry.columns)


def _torch_entry(entry: TableEntry) -> float:
    written = entry.blocks * entry.rest * entry.rows
    if entry.rows == entry.columns == 1:
        return _ELEMENTWISE * written
    # A gate on the whole state needs no other order.
    permuted = 0 if entry.blocks * entry.rest == 1 else _PERMUTED * written
    return entry.flops_per_token + permuted
