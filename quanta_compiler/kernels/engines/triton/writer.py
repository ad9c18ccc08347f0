"""The lines of a kernel: tiles loaded, rearranged, multiplied by gates and stored."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from quanta_compiler.kernels.engines.triton.diary import Diary
from quanta_compiler.kernels.engines.triton.factors import Factor
from quanta_compiler.kernels.engines.triton.tiles import (
    TOKENS,
    Bits,
    Memory,
    Sizes,
    T,
    Tile,
    dim,
    enclosed,
    padded,
    rearranged,
)
from quanta_compiler.lowering.table import GateTable, TableEntry

_DOT_BITS = 4
"""A product of Triton has at least 16 terms."""
_WIDTH = 120
"""Of a line that a reader sees whole."""
_SUM_BITS, _SMALL_BITS = 13, 5
"""A gradient of at most 32 rows and columns has several sums, of 8192 numbers together."""


class Writer:
    """The lines of one kernel."""

    def __init__(self, table: GateTable) -> None:
        self._table = table
        self._sizes = Sizes(table.sizes)
        self._diary = Diary(table)
        self._head: list[str] = []
        self._begin: list[str] = []
        self._lines: list[str] = []
        self._end: list[str] = []
        self._indent = "    "
        self._values = 0

    def text(self) -> str:
        """Return the source of the kernel."""
        lines = [*self._begin, *self._lines, *self._end]
        code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        counts = sorted({int(count) for count in re.findall(r"\bn(\d+)\b", code)})
        indices = [f"    n{count} = tl.arange(0, {count})" for count in counts]
        return "\n".join([*self._head, *indices, *lines]) + "\n"

    def begin(self, name: str, pointers: Sequence[str], *, loops: bool = False) -> None:
        """Write the kernel's head: `T` tokens a tile, `STATE` the dtype of states, `PRECISION` of products.

        A program has one tile; with `loops` it has every so many-th, and what it sums is there from one to the next.
        """
        arguments = textwrap.wrap(", ".join([*pointers, "tokens,"]), _WIDTH - 4)
        # Otherwise every multiple of 16 tokens and every other number would have a kernel of its own.
        self._head = [
            '@triton.jit(do_not_specialize=["tokens"])',
            f"def {name}(",
            *(f"    {line}" for line in arguments),
            "    T: tl.constexpr, STATE: tl.constexpr, PRECISION: tl.constexpr,",
            "):",
        ]
        tile = "tl.program_id(0)"
        if loops:
            self._add("for tile in range(tl.program_id(0), (tokens + T - 1) // T, tl.num_programs(0)):")
            self._indent, tile = "        ", "tile"
        self._add(f"t = ({tile} * T + tl.arange(0, T)).to(tl.int64)")
        self._add("real = (t < tokens)[:, None]")

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

    def kept(self, number: int, pointer: str, side: str) -> Memory:
        """Return where a state or a gradient is stored for a gate's own gradient: `[blocks, tokens, rest, side]`."""
        legs = self._table.entries[number].legs
        order = (*legs.per, TOKENS, *legs.rest, *getattr(legs, side))
        return Memory(pointer, order, self._sizes.volume(order))

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

    def fewest_tokens(self, numbers: Iterable[int]) -> int:
        """Return how many tokens a tile has at least that sums gradients of gates: a product has 16 terms or more."""
        rests = (len(self._sizes.bits(self._table.entries[number].legs.rest)) for number in numbers)
        return 1 << max(0, _DOT_BITS - min(rests, default=_DOT_BITS))

    def sums(self, number: int) -> int:
        """Return how many sums the gradient of a gate has in a program: all warps would hold one of few numbers.

        Of 64 rows and more, or of blocks, several would be more than registers hold.
        """
        legs = self._table.entries[number].legs
        rest, rows, columns = (len(self._sizes.bits(side)) for side in (legs.rest, legs.rows, legs.columns))
        if legs.per or max(rows, columns) > _SMALL_BITS:
            return 1
        return 1 << max(0, min(_SUM_BITS - rows - columns, rest - _DOT_BITS))

    def sum_gradient(self, state: Tile, gradient: Tile, number: int, behind: int) -> int:
        """Add the gradient of a gate to its sums, from the state that it reads and the gradient of what it makes.

        What a program has summed is stored in `sums`, `behind` so many numbers of other gates; return how many with it.
        """
        entry, name, parts = self._table.entries[number], f"d{number}", self.sums(number)
        legs = entry.legs
        per, rest, rows, columns = map(self._sizes.bits, (legs.per, legs.rest, legs.rows, legs.columns))
        blocks = (per,) if per else ()
        groups = [(*blocks, (T, *rest), side) for side in (rows, columns)]
        self._add(f"# {self._diary.sum(number, name, groups, parts)}")
        left, right = (self._define(rearranged(*one)) for one in zip((gradient, state), groups, strict=True))
        lead = ((1 << len(per)) * parts,) if per or parts > 1 else ()
        shape, order = (*lead, 1 << len(rows), 1 << len(columns)), "(0, 2, 1)" if lead else "(1, 0)"
        if parts > 1:
            lines = f"T * {(1 << len(rest)) // parts}"
            left, right = (
                self._define(f"tl.reshape({one}, ({parts}, {lines}, {side}))")
                for one, side in zip((left, right), shape[1:], strict=True)
            )
        self._begin.append(f"    {name} = tl.full({shape}, 0.0, dtype=tl.float32)")
        self._add(f"{name} = tl.dot(tl.permute({left}, {order}), {right}, {name}, input_precision=PRECISION)")
        at, mask = self._sum_places(entry, parts)
        at = [str(behind), *at] if behind else at
        self._end.append(f"    # {name}: [{self._diary.sums(number, parts)}]")
        self._end.append(f"    tl.store(part + {' + '.join(at)}, {name}{mask})")
        return behind + parts * entry.blocks * entry.rows * entry.columns

    def _sum_places(self, entry: TableEntry, parts: int) -> tuple[list[str], str]:
        """Return where the numbers of sums stand in memory, `[parts or blocks, rows, columns]`, and their mask."""
        legs = entry.legs
        strides = self._sizes.strides((*legs.per, *legs.rows, *legs.columns))
        has_lead = bool(legs.per) or parts > 1
        spreads = (
            ("[:, None, None]", "[None, :, None]", "[None, None, :]") if has_lead else ("", "[:, None]", "[None, :]")
        )
        offsets, masks = [], []
        if parts > 1:
            offsets.append(f"n{parts}[:, None, None] * {entry.rows * entry.columns}")
        sides = (*([(legs.per, spreads[0])] if legs.per else []), (legs.rows, spreads[1]), (legs.columns, spreads[2]))
        for of, spread in sides:
            index = f"{_index(len(self._sizes.bits(of)))}{spread}"
            at, inside = self._sizes.places(index, of, strides)
            offsets.append(at or f"{index} * 0")
            masks += inside
        return offsets, f", mask={' & '.join(masks)}" if masks else ""

    def end_sums(self, numbers: int) -> None:
        """Write where a program puts its sums, `[programs, numbers]`."""
        self._end.insert(0, f"    part = sums + tl.program_id(0).to(tl.int64) * {numbers}")

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
        total = f"\n{self._indent}    + ".join(terms)
        value = self._define(f"(\n{self._indent}    {total}\n{self._indent}).to(STATE)")
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
        folded = line.replace(cut, f",\n{self._indent}    {cut[2:]}", 1) if len(line) > _WIDTH - 4 else line
        self._lines.append(f"{self._indent}{folded}")


def _spread(offsets: str) -> str:
    return f"{enclosed(offsets)}[None, :]" if offsets else ""


def _index(bits: int) -> str:
    """Return the name of a flat index over that many axes."""
    return f"n{1 << bits}"
