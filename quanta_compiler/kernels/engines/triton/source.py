"""Gate table -> Triton source: whole tokens are register tiles, a gate is rearrange, load its matrix, multiply.

Two kernels carry out the entries `[first, last)`:

- `forward` reads the state before `first` and stores that behind `last - 1`; it may store the states that its entries
  read as well, each in the order of its reader, and is then called `states`.
- `flow` reads the gradient of the state behind `last - 1` and stores that of the state before `first`; it may store the
  gradients of the states that its entries make, each in the order of its maker.

What lies between segments of entries is in the order (per, rest, rows) of the entry that made it, without padding.
The same table gives the same bytes, on every machine.
"""

import re
import textwrap
from collections.abc import Collection, Sequence

from quanta_compiler.kernels.engines.triton.diary import Diary
from quanta_compiler.kernels.engines.triton.factors import Factor
from quanta_compiler.kernels.engines.triton.tiles import (
    TOKENS,
    Bits,
    Memory,
    Order,
    Sizes,
    T,
    Tile,
    dim,
    enclosed,
    padded,
    rearranged,
)
from quanta_compiler.lowering.table import GateTable, TableEntry

HEAD = "import triton\nimport triton.language as tl\n"
_DOT_BITS = 4
"""A product of Triton has at least 16 terms."""
_WIDTH = 120
"""Of a line that a reader sees whole."""


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
    writer = _Writer(table)
    kept = [f"s{number}" for number in sorted(keep)]
    pointers = ["x", *(["y"] if result else []), *kept, *writer.matrices("w", first, last)]
    writer.begin("states" if keep else "forward", [*pointers, *(writer.matrices("u", first, last) if minus else [])])
    tile = writer.load(writer.boundary(first, "x"))
    for number in range(first, last):
        entry = table.entries[number]
        writer.comment(number, "w", transposed=False)
        if number in keep:
            tile = writer.store(
                tile, Memory(f"s{number}", stored(entry, entry.legs.columns), _numbers(entry, entry.columns))
            )
        if number < last - 1 or result:
            tile = writer.product(tile, number, "w", transposed=False)
    if minus:
        other = writer.load(writer.boundary(first, "x"))
        for number in range(first, last):
            writer.comment(number, "u", transposed=False)
            other = writer.product(other, number, "u", transposed=False)
        tile = writer.difference(tile, other)
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
    writer = _Writer(table)
    kept = [f"e{number}" for number in sorted(keep)]
    given = range(first if result else first + 1, last)
    pointers = ["dy", *(["dx"] if result else []), *kept, *writer.matrices("w", given.start, given.stop)]
    writer.begin("flow", [*pointers, *(writer.matrices("u", first, last) if minus else [])])
    tile = writer.load(writer.boundary(last, "dy"))
    for number in reversed(range(first, last)):
        entry = table.entries[number]
        writer.comment(number, "w", transposed=True)
        if number in keep:
            tile = writer.store(tile, Memory(f"e{number}", stored(entry, entry.legs.rows), _numbers(entry, entry.rows)))
        if number in given:
            tile = writer.product(tile, number, "w", transposed=True)
    if minus:
        other = writer.load(writer.boundary(last, "dy"))
        for number in reversed(range(first, last)):
            writer.comment(number, "u", transposed=True)
            other = writer.product(other, number, "u", transposed=True)
        tile = writer.difference(tile, other)
    if result:
        writer.store(tile, writer.boundary(first, "dx"))
    return writer.text()


def stored(entry: TableEntry, last: Order) -> Order:
    """Return the order of a state or gradient that is stored for a gate's own gradient: a batch of matrices."""
    return (*entry.legs.per, TOKENS, *entry.legs.rest, *last)


def _numbers(entry: TableEntry, last: int) -> int:
    return entry.blocks * entry.rest * last


class _Writer:
    """The lines of one kernel."""

    def __init__(self, table: GateTable) -> None:
        self._table = table
        self._sizes = Sizes(table.sizes)
        self._diary = Diary(table)
        self._head: list[str] = []
        self._lines: list[str] = []
        self._values = 0

    def text(self) -> str:
        """Return the source of the kernel."""
        code = "\n".join(line for line in self._lines if not line.lstrip().startswith("#"))
        counts = sorted({int(count) for count in re.findall(r"\bn(\d+)\b", code)})
        indices = [f"    n{count} = tl.arange(0, {count})" for count in counts]
        return "\n".join([*self._head, *indices, *self._lines]) + "\n"

    def begin(self, name: str, pointers: Sequence[str]) -> None:
        """Write the kernel's head: `T` tokens a program, `STATE` the dtype of states, `PRECISION` of products."""
        arguments = textwrap.wrap(", ".join([*pointers, "tokens,"]), _WIDTH - 4)
        # Otherwise every multiple of 16 tokens and every other number would have a kernel of its own.
        self._head = [
            '@triton.jit(do_not_specialize=["tokens"])',
            f"def {name}(",
            *(f"    {line}" for line in arguments),
            "    T: tl.constexpr, STATE: tl.constexpr, PRECISION: tl.constexpr,",
            "):",
            "    t = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)",
            "    real = (t < tokens)[:, None]",
        ]

    def matrices(self, letter: str, first: int, last: int) -> list[str]:
        """Return the names of the matrices that the entries `[first, last)` read."""
        return [f"{letter}{number}" for number in range(first, last) if self._table.entries[number].matrix is not None]

    def boundary(self, number: int, pointer: str) -> Memory:
        """Return where the state before an entry stands between kernels; at the ends, a vector of the circuit."""
        table = self._table
        if number == 0:
            return Memory(pointer, (TOKENS, *table.inputs), table.in_features)
        if number == len(table.entries):
            return Memory(pointer, (TOKENS, *table.outputs), table.out_features)
        legs = table.entries[number - 1].legs
        order = (*legs.per, *legs.rest, *legs.rows)
        return Memory(pointer, (TOKENS, *order), self._sizes.volume(order))

    def comment(self, number: int, letter: str, *, transposed: bool) -> None:
        """Write what a gate, or its transpose, does; its matrices are named by a letter and the number."""
        self._add(f"# {self._diary.gate(number, f'{letter}{number}', transposed=transposed)}")

    def load(self, memory: Memory) -> Tile:
        """Read a tile of states, zero where there is none."""
        at, mask = self._tile_places(memory)
        self._add(f"# {self._diary.vector(memory.pointer, memory.order, memory.numbers)}")
        value = self._define(f"tl.load({memory.pointer} + {at}, mask={mask}, other=0.0).to(STATE)")
        return Tile(value, ((T,), self._flat(memory)))

    def store(self, tile: Tile, memory: Memory) -> Tile:
        """Write a tile in the order of a tensor, zero behind the axes of a longer vector; return it in that order."""
        at, mask = self._tile_places(memory)
        pointer, groups = memory.pointer, ((T,), self._flat(memory))
        self._add(f"# {self._diary.vector(pointer, memory.order, memory.numbers)}")
        value = self._define(rearranged(tile, groups))
        self._add(f"tl.store({pointer} + {at}, {value}.to({pointer}.dtype.element_ty), mask={mask})")
        behind = memory.numbers - self._sizes.volume(memory.order)
        if behind > 0:
            index = f"tl.arange(0, {padded(behind)})[None, :]"
            at = f"t[:, None] * {memory.numbers} + {memory.numbers - behind} + {index}"
            self._add(f"tl.store({pointer} + {at}, 0.0, mask=real & ({index} < {behind}))")
        return Tile(value, groups)

    def difference(self, tile: Tile, other: Tile) -> Tile:
        """Subtract a tile from another one."""
        self._add(f"# the difference of what the two have made: {self._diary.tile(tile.groups)}")
        return Tile(self._define(f"{tile.name} - {rearranged(other, tile.groups)}"), tile.groups)

    def product(self, tile: Tile, number: int, letter: str, *, transposed: bool) -> Tile:
        """Apply a gate, or its transpose, to a tile; its matrices are named by a letter and the number."""
        entry = self._table.entries[number]
        if entry.matrix is not None and not entry.legs.rows and not entry.legs.columns:
            return self._scaled(tile, entry, f"{letter}{number}")
        factor = Factor(self._sizes, entry, f"{letter}{number}", transposed=transposed)
        per, rest = self._sizes.bits(factor.per), self._sizes.bits(factor.rest)
        given, made = self._sizes.bits(factor.given), self._sizes.bits(factor.made)
        missing = max(0, _DOT_BITS - len(given))
        if missing > len(per) + len(rest):
            return self._written_out(tile, factor)
        # A product of few terms takes axes from beside the gate: its matrix then has blocks along its diagonal.
        of_rest = min(missing, len(rest))
        of_per = missing - of_rest
        beside = (*per[len(per) - of_per :], *rest[len(rest) - of_rest :])
        per, lines = per[: len(per) - of_per], (T, *rest[: len(rest) - of_rest])
        blocks = (per,) if per else ()
        groups, right = (*blocks, lines, (*beside, *given)), (*blocks, (*beside, *given), (*beside, *made))
        self._add(f"# {self._diary.tile(groups)} times {self._diary.tile(right)}")
        state = self._define(rearranged(tile, groups))
        indices = [_index(len(axes)) for axes in (per, (*beside, *given), (*beside, *made))]
        matrix = self._define(factor.matrix(indices, of_per, of_rest))
        value = self._define(f"tl.dot({state}, {matrix}, input_precision=PRECISION).to(STATE)")
        return Tile(value, (*blocks, lines, (*beside, *made)))

    def _scaled(self, tile: Tile, entry: TableEntry, pointer: str) -> Tile:
        """Multiply every number by that of its block."""
        legs = entry.legs
        per, rest = self._sizes.bits(legs.per), self._sizes.bits(legs.rest)
        at, masks = self._sizes.places(_index(len(per)), legs.per, self._sizes.strides(legs.per))
        mask = f", mask={' & '.join(masks)}, other=0.0" if masks else ""
        at = at or f"{_index(len(per))} * 0"
        scale = self._define(f"tl.load({pointer} + {at}{mask}).to(tl.float32)")
        groups = ((T,), per, rest)
        self._add(f"# {self._diary.tile(groups)}")
        state = self._define(rearranged(tile, groups))
        value = self._define(f"({state}.to(tl.float32) * {scale}[None, :, None]).to(STATE)")
        return Tile(value, groups)

    def _written_out(self, tile: Tile, factor: Factor) -> Tile:
        """Apply a gate of few terms, where there is little beside it, as a sum of columns times rows in float32."""
        per, lines = self._sizes.bits(factor.per), (T, *self._sizes.bits(factor.rest))
        given, made = self._sizes.bits(factor.given), self._sizes.bits(factor.made)
        groups, right = (per, lines, given), (per, given, made)
        self._add(f"# {self._diary.tile(groups)} times {self._diary.tile(right)}, too few for tl.dot")
        state = self._define(rearranged(tile, groups))
        columns = self._columns(state, f"{dim(per)}, {dim(lines)}", 1 << len(given))
        terms = []
        for place, column in enumerate(columns):
            row = factor.row(place, _index(len(per)), _index(len(made)))
            if row is not None:
                terms.append(f"{column}[:, :, None].to(tl.float32) * {self._define(row)}[:, None, :].to(tl.float32)")
        total = "\n        + ".join(terms)
        value = self._define(f"(\n        {total}\n    ).to(STATE)")
        return Tile(value, (per, lines, made))

    def _columns(self, value: str, lead: str, count: int) -> list[str]:
        """Take the last dimension apart by halves; return its columns in order."""
        if count == 1:
            return [self._define(f"tl.reshape({value}, ({lead}))")]
        even, odd = f"{value}e", f"{value}o"
        self._add(f"{even}, {odd} = tl.split(tl.reshape({value}, ({lead}, {count // 2}, 2)))")
        halves = (self._columns(half, lead, count // 2) for half in (even, odd))
        return [column for pair in zip(*halves, strict=True) for column in pair]

    def _flat(self, memory: Memory) -> Bits:
        return self._sizes.bits([leg for leg in memory.order if leg != TOKENS])

    def _tile_places(self, memory: Memory) -> tuple[str, str]:
        """Return the offsets and the mask of a tile `[T, numbers]` in memory."""
        split = memory.order.index(TOKENS)
        outer, inner = memory.order[:split], memory.order[split + 1 :]
        index, strides = _index(len(self._flat(memory))), self._sizes.strides(memory.order)
        per_token, size = self._sizes.volume(inner), self._sizes.padded(inner)
        if not outer:
            at, inside = self._sizes.places(index, inner, strides)
            if memory.numbers < per_token:
                inside = [*inside, f"({at} < {memory.numbers})"]
            offsets = [f"t[:, None] * {memory.numbers}", _spread(at)]
        else:
            at, inside = self._sizes.places(f"{index} % {size}", inner, strides)
            block, also = self._sizes.places(f"{index} // {size}", outer, strides)
            inside += also
            offsets = [f"t[:, None] * {per_token}", _spread(at)]
            offsets += [f"{enclosed(block)}.to(tl.int64)[None, :] * tokens"] if block else []
        masks = ["real", *(f"{mask}[None, :]" for mask in inside)]
        return " + ".join(filter(None, offsets)), " & ".join(masks)

    def _define(self, value: str) -> str:
        """Give a value a name, unless it has one."""
        if value.isidentifier():
            return value
        self._values += 1
        self._add(f"v{self._values} = {value}")
        return f"v{self._values}"

    def _add(self, line: str) -> None:
        cut = ", v" if line.startswith("tl.store") else ", mask="
        folded = line.replace(cut, f",\n        {cut[2:]}", 1) if len(line) > _WIDTH - 4 else line
        self._lines.append(f"    {folded}")


def _spread(offsets: str) -> str:
    return f"{enclosed(offsets)}[None, :]" if offsets else ""


def _index(bits: int) -> str:
    """Return the name of a flat index over that many axes."""
    return f"n{1 << bits}"
