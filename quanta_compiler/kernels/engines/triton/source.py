"""Gate table -> Triton source: whole tokens are register tiles, a gate is rearrange, load its matrix, multiply.

Two kernels carry out the entries `[first, last)`:

- `forward` reads the state before `first` and stores that behind `last - 1`; it may store the states that its entries
  read as well, each in the order of its reader, and is then called `states`.
- `flow` reads the gradient of the state behind `last - 1` and stores that of the state before `first`; it may store the
  gradients of the states that its entries make, each in the order of its maker.

What lies between segments of entries is in the order (per, rest, rows) of the entry that made it, without padding.
The same table gives the same bytes, on every machine.
"""

from collections.abc import Collection, Iterable

from quanta_compiler.kernels.engines.triton.tiles import Tile
from quanta_compiler.kernels.engines.triton.writer import Writer
from quanta_compiler.lowering.table import GateTable

HEAD = "import triton\nimport triton.language as tl\n"


def forward_source(
    table: GateTable, first: int, last: int, keep: Collection[int] = (), *, result: bool = True, minus: bool = False
) -> str:
    """Return the kernel `forward` of the entries `[first, last)`, `states` where it keeps any.

    Args:
        table: The circuit.
        first: The number of the first entry.
        last: The number behind the last one.
        keep: Numbers of entries whose state is stored as they read it, `[blocks, tokens, rest, columns]`, as `s0`, ...
        result: Whether the state behind the last entry is stored as `y`.
        minus: Whether what the same entries make with other matrices, `u0`, ..., is subtracted from it.

    """
    writer = Writer(table)
    kept = [f"s{number}" for number in sorted(keep)]
    pointers = ["x", *(["y"] if result else []), *kept, *writer.matrices("w", first, last)]
    writer.begin("states" if keep else "forward", [*pointers, *(writer.matrices("u", first, last) if minus else [])])
    start = tile = writer.load(writer.boundary(first, "x"))
    for number in range(first, last):
        writer.comment(number, "w", transposed=False)
        if number in keep:
            tile = writer.store(tile, writer.kept(number, f"s{number}", "columns"))
        if number < last - 1 or result:
            tile = writer.product(tile, number, "w", transposed=False)
    if minus:
        tile = writer.difference(tile, _through(writer, start, range(first, last), transposed=False))
    if result:
        writer.store(tile, writer.boundary(last, "y"))
    return writer.text()


def flow_source(
    table: GateTable, first: int, last: int, keep: Collection[int] = (), *, result: bool = True, minus: bool = False
) -> str:
    """Return the kernel `flow` of the entries `[first, last)`, from the last one to the first.

    Args:
        table: The circuit.
        first: The number of the first entry.
        last: The number behind the last one.
        keep: Numbers of entries whose gradient is stored as they made it, `[blocks, tokens, rest, rows]`, as `e0`, ...
        result: Whether the gradient of the state before the first entry is stored as `dx`.
        minus: Whether what the same entries make with other matrices, `u0`, ..., is subtracted from it.

    """
    writer = Writer(table)
    kept = [f"e{number}" for number in sorted(keep)]
    given = range(first if result else first + 1, last)
    pointers = ["dy", *(["dx"] if result else []), *kept, *writer.matrices("w", given.start, given.stop)]
    writer.begin("flow", [*pointers, *(writer.matrices("u", first, last) if minus else [])])
    start = tile = writer.load(writer.boundary(last, "dy"))
    for number in reversed(range(first, last)):
        writer.comment(number, "w", transposed=True)
        if number in keep:
            tile = writer.store(tile, writer.kept(number, f"e{number}", "rows"))
        if number in given:
            tile = writer.product(tile, number, "w", transposed=True)
    if minus:
        tile = writer.difference(tile, _through(writer, start, reversed(range(first, last)), transposed=True))
    if result:
        writer.store(tile, writer.boundary(first, "dx"))
    return writer.text()


def _through(writer: Writer, tile: Tile, numbers: Iterable[int], *, transposed: bool) -> Tile:
    """Take a tile through gates, or their transposes, with the matrices that are subtracted."""
    for number in numbers:
        writer.comment(number, "u", transposed=transposed)
        tile = writer.product(tile, number, "u", transposed=transposed)
    return tile


def segment_source(table: GateTable, first: int, last: int, keep: Collection[int] = (), *, result: bool = True) -> str:
    """Return the kernel `segment` of the entries `[first, last)`: backward with the gradients of gates in registers.

    It reads the state before `first` as that entry reads it, and the gradient of the state behind `last - 1`. Every
    program has its own sums, so that two runs give the same bits.

    Args:
        table: The circuit.
        first: The number of the first entry.
        last: The number behind the last one.
        keep: Numbers of entries whose matrix gets a gradient: `sums`, `[programs, numbers]`, has theirs in order.
        result: Whether the gradient of the state before the first entry is stored as `dx`.

    """
    writer = Writer(table)
    pointers = ["x", "dy", *(["dx"] if result else []), "sums", *writer.matrices("w", first, last)]
    writer.begin("segment", pointers, loops=True)
    tile = writer.load(writer.kept(first, "x", "columns") if first else writer.boundary(0, "x"))
    states = {}
    for number in range(first, last):
        states[number] = tile
        if number < last - 1:
            writer.comment(number, "w", transposed=False)
            tile = writer.product(tile, number, "w", transposed=False)
    tile = writer.load(writer.boundary(last, "dy"))
    gradients = {}
    for number in reversed(range(first, last)):
        writer.comment(number, "w", transposed=True)
        gradients[number] = tile
        if number > first or result:
            tile = writer.product(tile, number, "w", transposed=True)
    if result:
        writer.store(tile, writer.boundary(first, "dx"))
    numbers = 0
    for number in sorted(keep):
        numbers = writer.sum_gradient(states[number], gradients[number], number, numbers)
    writer.end_sums(numbers)
    return writer.text()
