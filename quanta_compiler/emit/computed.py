"""Leaves that are computed from what is stored: a statement for each, or one for all RY."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from textwrap import wrap

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import made_matrix
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.kinds.kind import Form
from quanta_compiler.kinds.made import Made
from quanta_compiler.lowering.functions import made_gates
from quanta_compiler.lowering.program import Function, Load, Maker, Program
from quanta_compiler.planner.plan import Alike

Statement = tuple[str, str, str]
"""A statement, a comment on its result, and a label, with which the statements of one step end."""

_A_LINE = 6
"""Parameters that a line lists."""
_LONG = 80
"""Characters of a call's arguments that stand on one line."""


def stored_name(key: str) -> str:
    """Return how the module reads a tensor of its state dict: `g0.B` is `gates["g0"]["B"]`."""
    return "gates" + "".join(f'["{name}"]' for name in key.split("."))


def method_name(kind: str, made: Made) -> str:
    """Return how the emitted class calls the function that makes a kind's matrices."""
    return (method_prefix(kind) if made.text is not None else "_") + made.function


def method_prefix(kind: str) -> str:
    """Return what the functions of a kind's own text are called by in front: no name of ours is like that."""
    return f"_{kind}__"


@dataclass(frozen=True, slots=True)
class Names:
    """How a body calls what is not its own."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of what is stored, by how the module reads it."""
    axes_of: Mapping[str, str] = field(default_factory=dict)
    """What a gate acts on, for its heading."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Parameters that are no tensors of the state dict."""
    functions: Mapping[Function | Maker, str] = field(default_factory=dict)
    """The functions that programs call: those that apply `pauli` gates, and those that make blocks for them."""
    like: str = ""
    """A tensor that has the dtype and the device of the module."""
    helpers: list[str] = field(default_factory=list)
    """The functions that the statements of all bodies call."""


@dataclass
class ComputedLeaves:
    """Writes the computed leaves of one program, each once."""

    program: Program
    names: Names
    known: set[str] = field(default_factory=set)
    """Names that are there already."""

    def load(self, load: Load) -> tuple[str, str, list[Statement]]:
        """Return the name of a leaf, its dimensions, and the statements that make it where nothing has yet."""
        gate = load.leaf.gate
        assert gate is not None
        if gate.form is Form.ANGLE:
            return self._ry(gate)
        if gate.block_of is not None:
            return self._block(load, gate, gate.block_of)
        if gate.form is Form.SIGNS:
            # An axis of size 1 has no leg any more, and one that is written out as bits has several.
            rows, columns = self._size(gate.columns[:-1]), self._size(gate.columns[-1:])
            name = "cz" if (rows, columns) == (2, 2) else f"cz_{rows}x{columns}"
            code = f"{self._helper('_cz')}({self.names.like}, {rows}, {columns})"
            return name, f"{rows}, {columns}", self._once(name, code)
        name = f"matrix_{gate.parameter}"
        if load.function is not None:
            dims, statements = self._pauli(load)
            return name, dims, statements
        dims, code = self._made(gate)
        return name, dims, self._once(name, code)

    def _once(self, name: str, code: str) -> list[Statement]:
        if name in self.known:
            return []
        self.known.add(name)
        return [(f"{name} = {code}", "", "")]

    def _helper(self, name: str) -> str:
        self.names.helpers.append(name)
        return f"Circuit.{name}"

    def _flat(self, parameter: str) -> str:
        name = stored_name(parameter)
        return name + (".flatten()" if len(self.names.shapes[name]) > 1 else "")

    def _size(self, legs: tuple[int, ...]) -> int:
        return self.program.plan.gate_size(legs)

    # RY

    def _ry(self, gate: Gate) -> tuple[str, str, list[Statement]]:
        if gate.angle is not None:
            # Within a block, of a stack of gates.
            place, dims = f"ry[{gate.angle}]", "n, 2, 2"
        else:
            first, count = self._places[gate.parameter]
            place, dims = f"ry[{first}]", "2, 2"
            if gate.per:
                place, dims = f"ry[{first}:{first + count}]", f"{count}, 2, 2"
        if "ry" in self.known:
            return place, dims, []
        self.known.add("ry")
        return place, dims, [(line, "", "") for line in self._ry_lines()]

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Where the matrices of every RY stand among all: the first, and how many there are."""
        counts = {gate.parameter: self._size(gate.per) for gate in self._ry_gates()}
        firsts = accumulate(counts.values(), initial=0)
        return {name: (first, count) for (name, count), first in zip(counts.items(), firsts, strict=False)}

    def _ry_gates(self) -> Iterator[Gate]:
        for operation in self.program.operations:
            gate = operation.leaf.gate if isinstance(operation, Load) else None
            if gate is not None and gate.form is Form.ANGLE:
                yield gate

    def _ry_lines(self) -> Iterator[str]:
        """Yield what computes all RY at once.

        They are taken apart in one step where each is read by itself: its gradient is one step too, not a sum of all.
        """
        call = self._helper("_ry")
        gates = {gate.parameter: gate for gate in self._ry_gates()}
        if any(gate.angle is not None for gate in gates.values()):
            yield f"ry = {call}({ANGLES}.t()).view(-1, n, 2, 2).unbind()"
            return
        read = [self._flat(name) for name in gates]
        apart = "" if any(gate.per for gate in gates.values()) else ".unbind()"
        if len(read) == 1:
            yield f"ry = {call}({read[0]}){apart}"
            return
        for first in range(0, len(read), _A_LINE):
            yield f"{ANGLES} {'+' if first else ''}= [{', '.join(read[first : first + _A_LINE])}]"
        yield f"ry = {call}(torch.cat({ANGLES})){apart}"

    # Whole matrices

    def _made(self, gate: Gate) -> tuple[str, str]:
        rows, columns = self._size(gate.rows), self._size(gate.columns)
        made = made_matrix(gate, rows, columns)
        # Those of the gate that owns the parameter.
        sides = (columns, rows) if gate.transpose else (rows, columns)
        # `per` axes of size 1 have no legs any more, but dimensions in what is stored.
        stored, (part,) = self.names.shapes[stored_name(gate.parameter)], gate.matrix.stored(*sides)
        dims = [
            *stored[: len(stored) - len(part.shape)],
            *(reversed(sides) if gate.matrix.makes_transpose(*sides) else sides),
        ]
        numbers = ("-" if made.is_negated else "") + stored_name(gate.parameter)
        given = ", ".join([numbers, *map(repr, made.arguments)])
        if len(given) > _LONG:
            # Only numbers, what is put in brackets of them, and None: every blank is between two of them.
            given = "".join(f"\n        {line}" for line in wrap(given, _LONG)) + "\n    "
        return ", ".join(map(str, dims)), f"{self._helper(method_name(gate.kind, made))}({given})"

    def _pauli(self, load: Load) -> tuple[str, list[Statement]]:
        gate, function, maker = load.leaf.gate, load.function, load.maker
        assert gate is not None
        assert function is not None
        assert maker is not None
        name, count, size = f"matrix_{gate.parameter}", function.count, function.size
        statements = self.blocks(maker)
        rows = f"{self._helper('_eye')}({stored_name(gate.parameter)}, {count}, {size})"

        def made(place: int | str) -> str:
            return self.applied(function, rows, self.blocks_of(maker, place))

        first, number = self._stacks[maker.alike][gate.parameter]
        if not gate.per:
            return f"{count}, {size}", [*statements, *self._once(name, made(first))]
        dims = f"{number}, {count}, {size}"
        code = f"torch.stack([{made('i')} for i in range({first}, {first + number})])"
        return dims, [*statements, *self._once(name, code)]

    def _block(self, load: Load, gate: Gate, owner: Gate) -> tuple[str, str, list[Statement]]:
        maker = load.maker
        assert maker is not None
        size = self._size((*gate.per, *(gate.columns if gate.is_diagonal else (*gate.rows, *gate.columns))))
        return f"{self.blocks_of(maker, self.place(maker, owner))}[{gate.block}]", str(size), self.blocks(maker)

    def applied(self, function: Function, x: str, blocks: str) -> str:
        """Return what calls a function with vectors."""
        name = self.names.functions.get(function)
        return x if name is None else f"Circuit.{name}({x}, {blocks})"

    def blocks(self, maker: Maker) -> list[Statement]:
        """Return the statement that makes the blocks of all gates that are alike, where nothing has yet."""
        function = self.names.functions.get(maker)
        if function is None:
            return []
        stack = self._stacks[maker.alike]
        if all(number == 1 for _, number in stack.values()):
            joined = f"torch.stack([{', '.join(map(self._flat, stack))}])"
        else:
            each = [f"{stored_name(name)}.reshape(-1, {maker.angles})" for name in stack]
            joined = f"torch.cat([{', '.join(each)}])"
        return self._once(function.removeprefix("_"), f"Circuit.{function}({joined})")

    def blocks_of(self, maker: Maker, place: int | str) -> str:
        """Return the blocks of one gate of the stack."""
        return f"{self.names.functions.get(maker, '').removeprefix('_')}[{place}]"

    def place(self, maker: Maker, gate: Gate) -> int:
        """Return the place of a gate in its stack."""
        return self._stacks[maker.alike][gate.parameter][0]

    @cached_property
    def _stacks(self) -> dict[Alike, dict[str, tuple[int, int]]]:
        """The parameters of all gates that are alike, each with its place in the stack and their number."""
        stacks: dict[Alike, dict[str, tuple[int, int]]] = {}
        for gate, maker in sorted(made_gates(self.program), key=lambda pair: pair[0].position):
            stack = stacks.setdefault(maker.alike, {})
            first = sum(number for _, number in stack.values())
            stack.setdefault(gate.parameter, (first, self._size(gate.per)))
        return stacks
