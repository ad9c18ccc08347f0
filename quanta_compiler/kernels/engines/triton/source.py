"""Gate table -> Triton source: whole tokens are register tiles, a gate is rearrange, load its matrix, multiply.

Two kernels carry out the entries `[first, last)`:

- `forward` reads the state before `first` and stores that behind `last - 1`; it may store the states that its entries
  read as well, each in the order of its reader.
- `flow` reads the gradient of the state behind `last - 1` and stores that of the state before `first`; it may store the
  gradients of the states that its entries make, each in the order of its maker.

What lies between segments of entries is in the order (per, rest, rows) of the entry that made it, without padding.
The same table gives the same bytes, on every machine.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from quanta_compiler.kernels.engines.triton.tiles import TOKENS, Memory, Order, Sizes, Tile, enclosed, padded
from quanta_compiler.lowering.table import GateTable, StepLegs, TableEntry

HEAD = "import triton\nimport triton.language as tl\n"
SMALLEST_DOT = 16
"""Triton's products have at least so many terms; shorter ones are written out."""


def forward_source(table: GateTable, first: int, last: int, keep: Collection[int] = (), *, result: bool = True) -> str:
    """Return the kernel `forward` of the entries `[first, last)`.

    Args:
        table: The circuit.
        first: The number of the first entry.
        last: The number behind the last one.
        keep: Numbers of entries whose state is stored as they read it, `[blocks, tokens, rest, columns]`, as `s0`, ...
        result: Whether the state behind the last entry is stored as `y`.

    """
    writer = _Writer(table)
    kept = [f"s{number}" for number in sorted(keep)]
    pointers = ["x", *(["y"] if result else []), *kept, *writer.matrices(first, last)]
    writer.begin("forward", pointers)
    tile = writer.load("a", writer.boundary(first, "x"))
    for number in range(first, last):
        entry = table.entries[number]
        writer.comment(entry, "columns", "rows")
        if number in keep:
            writer.store(tile, Memory(f"s{number}", stored(entry, entry.legs.columns), _numbers(entry, entry.columns)))
        if number < last - 1 or result:
            tile = writer.product(tile, number, transposed=False)
    if result:
        writer.store(tile, writer.boundary(last, "y"))
    return writer.text()


def flow_source(table: GateTable, first: int, last: int, keep: Collection[int] = (), *, result: bool = True) -> str:
    """Return the kernel `flow` of the entries `[first, last)`, from the last one to the first.

    Args:
        table: The circuit.
        first: The number of the first entry.
        last: The number behind the last one.
        keep: Numbers of entries whose gradient is stored as they made it, `[blocks, tokens, rest, rows]`, as `e0`, ...
        result: Whether the gradient of the state before the first entry is stored as `dx`.

    """
    writer = _Writer(table)
    kept = [f"e{number}" for number in sorted(keep)]
    given = range(first if result else first + 1, last)
    pointers = ["dy", *(["dx"] if result else []), *kept, *writer.matrices(given.start, given.stop)]
    writer.begin("flow", pointers)
    tile = writer.load("a", writer.boundary(last, "dy"))
    for number in reversed(range(first, last)):
        entry = table.entries[number]
        writer.comment(entry, "rows", "columns")
        if number in keep:
            writer.store(tile, Memory(f"e{number}", stored(entry, entry.legs.rows), _numbers(entry, entry.rows)))
        if number in given:
            tile = writer.product(tile, number, transposed=True)
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
        self.sizes = Sizes(table.sizes)
        self._lines: list[str] = []
        self._indices: set[int] = set()
        self.values = 0

    def text(self) -> str:
        """Return the source of the kernel."""
        return "\n".join(self._lines) + "\n"

    def begin(self, name: str, pointers: Sequence[str]) -> None:
        """Write the kernel's head: `T` tokens a program, `STATE` the dtype of states, `PRECISION` of products."""
        constants = "T: tl.constexpr, STATE: tl.constexpr, PRECISION: tl.constexpr"
        # Otherwise every multiple of 16 tokens and every other number would have a kernel of its own.
        self._lines.append('@triton.jit(do_not_specialize=["tokens"])')
        self._lines.append(f"def {name}({', '.join(pointers)}, tokens, {constants}):")
        self.add("t = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)")

    def matrices(self, first: int, last: int) -> list[str]:
        """Return the names of the matrices that the entries `[first, last)` read."""
        return [f"w{number}" for number in range(first, last) if self._table.entries[number].matrix is not None]

    def boundary(self, number: int, pointer: str) -> Memory:
        """Return where the state before an entry stands between kernels; at the ends, a vector of the circuit."""
        table = self._table
        if number == 0:
            return Memory(pointer, (TOKENS, *table.inputs), table.in_features)
        if number == len(table.entries):
            return Memory(pointer, (TOKENS, *table.outputs), table.out_features)
        legs = table.entries[number - 1].legs
        order = (*legs.per, *legs.rest, *legs.rows)
        return Memory(pointer, (TOKENS, *order), self.sizes.volume(order))

    def comment(self, entry: TableEntry, before: str, after: str) -> None:
        """Write what a gate does to the shape of a token."""
        legs = entry.legs
        kept = self._shape((*legs.per, *legs.rest))
        given, made = (self._shape(getattr(legs, side)) for side in (before, after))
        blocks = f" for each of {self._shape(legs.per)}" if legs.per else ""
        what = "diagonal" if not legs.rows and not legs.columns else f"{given} -> {made}"
        self.add(f"# {entry.name}: {what}{blocks}, beside {kept}")

    def load(self, name: str, memory: Memory) -> Tile:
        """Read a tile of states, zero where there is none."""
        at, mask = self._tile_places(memory)
        tile = Tile(name, (TOKENS, *(leg for leg in memory.order if leg != TOKENS)))
        self.add(f"{name} = tl.load({memory.pointer} + {at}, mask={mask}, other=0.0).to(STATE)")
        return tile

    def store(self, tile: Tile, memory: Memory) -> None:
        """Write a tile to where a tensor has it."""
        order = (TOKENS, *(leg for leg in memory.order if leg != TOKENS))
        value = self.sizes.rearranged(tile, ((TOKENS,), order[1:]))
        at, mask = self._tile_places(memory)
        pointer = memory.pointer
        self.add(f"tl.store({pointer} + {at}, {value}.to({pointer}.dtype.element_ty), mask={mask})")
        behind = memory.numbers - self.sizes.volume(memory.order)
        if behind > 0:
            index = f"tl.arange(0, {padded(behind)})[None, :]"
            at = f"t[:, None] * {memory.numbers} + {memory.numbers - behind} + {index}"
            self.add(f"tl.store({pointer} + {at}, 0.0, mask=(t < tokens)[:, None] & ({index} < {behind}))")

    def product(self, tile: Tile, number: int, *, transposed: bool) -> Tile:
        """Apply a gate, or its transpose, to a tile."""
        entry = self._table.entries[number]
        legs = entry.legs
        if entry.matrix is None:  # the same for all blocks
            legs = replace(legs, per=(), rest=legs.per + legs.rest)
        elif not legs.rows and not legs.columns:
            return self._scaled(tile, entry, f"w{number}")
        given, made = (legs.rows, legs.columns) if transposed else (legs.columns, legs.rows)
        lines = (TOKENS, *legs.rest)
        groups = (legs.per, lines, given) if legs.per else (lines, given)
        state = self.value()
        self.add(f"{state} = {self.sizes.rearranged(tile, groups)}")
        matrix = _Matrix(self, legs, f"w{number}" if entry.matrix is not None else None, transposed)
        if self.sizes.padded(given) >= SMALLEST_DOT:
            value = f"tl.dot({state}, {matrix.tile(self.value())}, input_precision=PRECISION).to(STATE)"
        else:
            value = self._written_out(state, groups, matrix)
        result = Tile(self.value(), (*legs.per, *lines, *made))
        self.add(f"{result.name} = {value}")
        return result

    def _scaled(self, tile: Tile, entry: TableEntry, pointer: str) -> Tile:
        """Multiply every number by that of its block."""
        per, rest = entry.legs.per, entry.legs.rest
        index = self.index(per)
        at, masks = self.sizes.places(index, per, self.sizes.strides(per))
        mask = f", mask={' & '.join(masks)}, other=0.0" if masks else ""
        scale, state = self.value(), self.value()
        self.add(f"{scale} = tl.load({pointer} + {at}{mask})")
        self.add(f"{state} = {self.sizes.rearranged(tile, ((TOKENS,), per, rest))}")
        result = Tile(self.value(), (TOKENS, *per, *rest))
        self.add(f"{result.name} = ({state}.to(tl.float32) * {scale}.to(tl.float32)[None, :, None]).to(STATE)")
        return result

    def _written_out(self, state: str, groups: Sequence[Order], matrix: "_Matrix") -> str:
        """Return a product of few terms as a sum of columns times rows, in float32."""
        terms = self._columns(state, [self.sizes.dim(group) for group in groups[:-1]], self.sizes.padded(groups[-1]))
        parts = []
        for place, column in enumerate(terms):
            row = matrix.row(place, self.value)
            if row is not None:
                left, right = ("[:, :, None]", "[:, None, :]") if len(groups) == 3 else ("[:, None]", "[None, :]")
                parts.append(f"{column}{left}.to(tl.float32) * {row}{right}.to(tl.float32)")
        return f"({' + '.join(parts)}).to(STATE)"

    def _columns(self, value: str, lead: list[int | str], count: int) -> list[str]:
        """Take the last dimension apart by halves; return its columns in order."""
        front = ", ".join(map(str, lead))
        if count == 1:
            name = self.value()
            self.add(f"{name} = tl.reshape({value}, ({front}{',' if len(lead) == 1 else ''}))")
            return [name]
        even, odd = self.value(), self.value()
        self.add(f"{even}, {odd} = tl.split(tl.reshape({value}, ({front}, {count // 2}, 2)))")
        halves = (self._columns(half, lead, count // 2) for half in (even, odd))
        return [column for pair in zip(*halves, strict=True) for column in pair]

    def _tile_places(self, memory: Memory) -> tuple[str, str]:
        """Return the offsets and the mask of a tile `[T, numbers]` in memory."""
        split = memory.order.index(TOKENS)
        outer, inner = memory.order[:split], memory.order[split + 1 :]
        index, strides = self.index((*outer, *inner)), self.sizes.strides(memory.order)
        per_token, size = self.sizes.volume(inner), self.sizes.padded(inner)
        masks = ["(t < tokens)[:, None]"]
        if not outer:
            at, inside = self.sizes.places(index, inner, strides)
            if memory.numbers < per_token:
                inside = [*inside, f"({at} < {memory.numbers})"]
            offsets = f"t[:, None] * {memory.numbers} + {enclosed(at)}[None, :]"
        else:
            behind = index if size == self.sizes.padded((*outer, *inner)) else f"({index} % {size})"
            at, inside = self.sizes.places(behind, inner, strides)
            block, also = self.sizes.places(f"({index} // {size})" if size > 1 else index, outer, strides)
            inside += also
            offsets = f"t[:, None] * {per_token} + {enclosed(at)}[None, :]"
            offsets += f" + {enclosed(block)}.to(tl.int64)[None, :] * tokens"
        return offsets, " & ".join([*masks, *(f"{mask}[None, :]" for mask in inside)])

    def index(self, legs: Order) -> str:
        """Return the name of a flat padded index over legs, written once for every volume."""
        volume = self.sizes.padded(legs)
        if volume not in self._indices:
            self._indices.add(volume)
            self.add(f"n{volume} = tl.arange(0, {volume})")
        return f"n{volume}"

    def value(self) -> str:
        self.values += 1
        return f"v{self.values}"

    def add(self, line: str) -> None:
        self._lines.append(f"    {line}")

    def _shape(self, legs: Sequence[int]) -> str:
        return "x".join(str(self._table.sizes[leg]) for leg in legs) or "1"


class _Matrix:
    """A gate's matrices as a factor: `[blocks, given, made]`, where the state has `given` numbers and gets `made`."""

    def __init__(self, writer: _Writer, legs: StepLegs, pointer: str | None, transposed: bool) -> None:
        self._writer, self._legs, self._pointer = writer, legs, pointer
        self._given, self._made = (legs.rows, legs.columns) if transposed else (legs.columns, legs.rows)
        sizes = writer.sizes
        # A slice has no numbers in memory: it compares the places of rows and columns.
        self._strides = sizes.strides((*legs.per, *legs.rows, *legs.columns)) if pointer is not None else {}
        if pointer is None:
            self._strides = {**sizes.strides(legs.rows), **sizes.strides(legs.columns)}

    def tile(self, name: str) -> str:
        """Write the lines that read all of it; return its name."""
        writer, per = self._writer, self._legs.per
        (given, made) = ("[None, :, None]", "[None, None, :]") if per else ("[:, None]", "[None, :]")
        places = [(self._given, given), (self._made, made), *([(per, "[:, None, None]")] if per else [])]
        terms, masks = self._places(places)
        writer.add(f"{name} = {self._read(terms, masks)}")
        return name

    def row(self, place: int, value: Callable[[], str]) -> str | None:
        """Write the lines that read the numbers of one given place, `[blocks, made]`; return None in the padding."""
        writer, per = self._writer, self._legs.per
        at = 0
        for leg in reversed(self._given):
            place, coordinate = divmod(place, padded(writer.sizes.sizes[leg]))
            if coordinate >= writer.sizes.sizes[leg]:
                return None
            at += coordinate * self._strides[leg]
        places = [(self._made, "[None, :]"), (per, "[:, None]")] if per else [(self._made, "")]
        terms, masks = self._places(places)
        name = value()
        writer.add(f"{name} = {self._read([str(at), *terms] if at or self._pointer is None else terms, masks)}")
        return name

    def _places(self, parts: Sequence[tuple[Order, str]]) -> tuple[list[str], list[str]]:
        """Return the offset and the conditions of each part, each spread over the dimensions of the others."""
        terms, masks = [], []
        for legs, spread in parts:
            at, inside = self._writer.sizes.places(self._writer.index(legs), legs, self._strides)
            terms.append(f"{enclosed(at)}{spread}")
            masks += [f"{mask}{spread}" for mask in inside]
        return terms, masks

    def _read(self, terms: list[str], masks: list[str]) -> str:
        if self._pointer is None:
            given, made = terms
            return f"tl.where({' & '.join([f'({given} == {made})', *masks])}, 1.0, 0.0).to(STATE)"
        mask = f", mask={' & '.join(masks)}, other=0.0" if masks else ""
        return f"tl.load({self._pointer} + {' + '.join(terms)}{mask}).to(STATE)"
