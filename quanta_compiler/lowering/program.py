"""The program: what a plan becomes when every tensor has a layout in memory.

A *value* is a contiguous tensor whose legs stand in the order of its layout. An *access* reads a value as a tensor
whose dimensions are groups of legs; every group is a run of neighbouring legs of the layout, so an access is a view and
never moves data. What moves data is an operation of its own (`Copy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.planner.plan import Alike, Leaf, Plan

Layout = tuple[int, ...]
Groups = tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A value read as a tensor whose dimensions are `groups`; an empty group is a dimension of size 1."""

    value: int
    groups: Groups


@dataclass(frozen=True, slots=True)
class Value:
    """What every operation has: the number of the value that it makes, and the order of its legs in memory."""

    result: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class Moved(Value):
    """An operation on one value, whose result is written as a tensor of the dimensions `groups`."""

    source: Access
    groups: Groups


@dataclass(frozen=True, slots=True)
class Product(Value):
    """An operation on two values."""

    left: Access
    right: Access
    groups: Groups
    flops: int
    label: str


@dataclass(frozen=True, slots=True)
class OfHalves(Value):
    """An operation of a function on two halves."""

    halves: tuple[Access, Access]
    groups: Groups


@dataclass(frozen=True, slots=True)
class Load(Value):
    """A leaf: the input, a stored parameter or constant, or what is computed from a parameter by itself."""

    leaf: Leaf
    function: Function | None = None
    """What makes the matrix of a structured gate: called with the first rows of an identity matrix."""
    maker: Maker | None = None
    """What makes the blocks that its function is called with; a leaf may be one of these."""


def is_computed(load: Load) -> bool:
    """Return whether a leaf is no stored tensor, but computed from one or from nothing."""
    gate = load.leaf.gate
    return gate is not None and load.leaf.source == "gate" and (gate.matrix.is_made or gate.block_of is not None)


@dataclass(frozen=True, slots=True)
class Copy(Moved):
    """The same numbers in another layout."""


@dataclass(frozen=True, slots=True)
class Matmul(Product):
    """`left @ right`: [batch, m, k] @ [batch, k, n] -> [batch, m, n]; without a batch two dimensions each."""


@dataclass(frozen=True, slots=True)
class Multiply(Product):
    """An elementwise product with broadcasting, group by group."""


@dataclass(frozen=True, slots=True)
class Resize(Moved):
    """The middle of three dimensions cut to its first indices, padded with zeros, or only renamed (a free reshape)."""

    old_size: int
    new_size: int
    label: str


@dataclass(frozen=True, slots=True)
class Call(Moved):
    """A function called on the last of two dimensions, which is padded or cut to the function's size and back."""

    function: Function
    flops: int = 0
    label: str = ""
    gate: Gate | None = None
    angles: Access | None = None
    """What the blocks that it is called with are made from, by `maker`. Within a function they are some of its own."""
    maker: Maker | None = None
    first: int = 0
    """Within a function, the first of its blocks that are the other's."""


@dataclass(frozen=True, slots=True)
class Split(Moved):
    """Some numbers of every vector as vectors of their own: those from `start` on."""

    start: int


@dataclass(frozen=True, slots=True)
class Turn(OfHalves):
    """One of two halves after their first numbers have been turned, pair by pair, by a function's first two blocks.

    These are the cosines and the sines of its angles.
    """

    side: int
    """Which half it is."""
    pairs: int
    back: bool
    """Whether the pairs turn the other way."""


@dataclass(frozen=True, slots=True)
class Join(OfHalves):
    """Vectors put together, one behind the other."""


@dataclass(frozen=True, slots=True)
class Function:
    """What applies a structured matrix to vectors, `[count, size]`, from blocks that have been made for it.

    Equal ones are written once. It is no more than a program, so whatever reads programs reads functions.
    """

    name: str
    about: str
    """What it does, in a sentence."""
    alike: Alike
    """What gates have in common whose blocks are made together."""
    size: int
    count: int
    """How many vectors it is planned for."""
    blocks: int
    """How many tensors it is given beside the vectors."""
    program: Program

    def __hash__(self) -> int:
        # A function that is called twice would be hashed twice, and what it calls four times.
        return hash((self.about, self.alike))

    @property
    def is_identity(self) -> bool:
        """Return whether nothing is done."""
        return isinstance(self.program.operations[-1], Load)


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes the blocks of functions: of a stack of angles, `[stack, angles]`, for all gates that are alike.

    Of a sum of two, the blocks are the cosines and sines of `pairs` angles, and those that other makers make of the
    angles of V1, V2, and of U1, U2. Both are called with V and U in one stack, twice as many.
    """

    name: str
    about: str
    alike: Alike
    stack: int
    angles: int
    programs: tuple[Program, ...] = ()
    """One for each block."""
    pairs: int = 0
    halves: tuple[Maker, ...] = ()

    def __hash__(self) -> int:
        return hash((self.about, self.stack))

    @property
    def blocks(self) -> int:
        """Return how many tensors it makes of the angles of a gate."""
        return len(self.programs) + (2 + 2 * sum(half.blocks for half in self.halves) if self.halves else 0)


@dataclass(frozen=True, slots=True)
class Tie(Moved):
    """An identity written out: the last dimension of `source` becomes the diagonal of `legs`, (new side, old side).

    Where the old side is no leg of the source, its last group is empty and the diagonal is constant along it.
    """

    legs: tuple[int, int]
    label: str


@dataclass(frozen=True, slots=True)
class Pick(Moved):
    """One slice of a value: the legs that the loop fixes go, each at the index of the slice.

    A view where they stand in front of the value's layout and the others in the order of `layout`; a copy elsewhere.
    """

    @property
    def picked(self) -> Layout:
        """Return the legs that go, in the order of the loop: the first dimension that is read."""
        return self.source.groups[0]


def is_front(pick: Pick, layout: Layout) -> bool:
    """Return whether a pick from a value of a layout is a view, whole and in order."""
    count = len(pick.picked)
    return set(layout[:count]) == set(pick.picked) and layout[count:] == pick.layout


Operation = Load | Copy | Matmul | Multiply | Resize | Call | Split | Turn | Join | Tie | Pick


def sources(operation: Operation) -> tuple[Access, ...]:
    """Return what an operation reads."""
    if isinstance(operation, Product):
        return operation.left, operation.right
    if isinstance(operation, OfHalves):
        return operation.halves
    if isinstance(operation, Call) and operation.angles is not None:
        return operation.source, operation.angles
    return () if isinstance(operation, Load) else (operation.source,)


@dataclass(frozen=True, slots=True)
class Loop:
    """How a program builds an operator slice by slice, each written to its place in the result."""

    legs: Layout
    """Legs of the result, neighbours in it: a slice has one index of each."""
    slices: int
    """How many are made: fewer than there are indices where the rest would be cut off again."""
    first: int
    """The operation that the loop begins with; those before it run once."""
    ties: tuple[tuple[int, int], ...]
    """Legs of the result, (output side, input side), off whose diagonal it is zero.

    A slice has the input side, or where it is the same along that leg, neither.
    """


@dataclass(frozen=True, slots=True)
class Program:
    """Operations in order, the last one's result being the output, in the layout `plan.output`.

    Where there is a loop, the operations from `loop.first` on run once for every slice, on values without the legs that
    the loop fixes, and the last one's result is a slice, in any layout.
    """

    plan: Plan
    operations: tuple[Operation, ...]
    in_features: int
    """The input's width as the user gives it: padded or truncated to the product of the circuit's input legs."""
    out_features: int
    """Likewise for the output."""
    in_size: int
    out_size: int
    loop: Loop | None = None
    at_once: Program | None = None
    """The same matrix without the loop, for compilers, which would unroll it."""
    in_slices: Program | None = None
    """The same matrix with a loop, to be added to another: where it is large, but built better at once."""

    @property
    def output(self) -> int:
        """Return the value that the program computes."""
        return self.operations[-1].result

    @property
    def functions(self) -> tuple[Function | Maker, ...]:
        """Return the functions that are called, each behind those that it calls itself."""
        found: dict[Function | Maker, None] = {}

        def add(one: Function | Maker) -> None:
            if one not in found:
                for inner in one.halves if isinstance(one, Maker) else one.program.called:
                    add(inner)
                found[one] = None

        for one in self.called:
            add(one)
        return tuple(found)

    @property
    def called(self) -> Iterator[Function | Maker]:
        """Yield what the operations themselves call."""
        for operation in self.operations:
            if isinstance(operation, Load | Call):
                yield from (one for one in (operation.function, operation.maker) if one is not None)
