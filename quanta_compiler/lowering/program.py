"""The program: what a plan becomes when every tensor has a layout in memory.

A *value* is a contiguous tensor whose legs stand in the order of its layout. An *access* reads a value as a tensor
whose dimensions are groups of legs; every group is a run of neighbouring legs of the layout, so an access is a view and
never moves data. What moves data is an operation of its own (`Copy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.planner.plan import BlocksPlan, Leaf, PauliPlan, Plan

Layout = tuple[int, ...]
Groups = tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A value read as a tensor whose dimensions are `groups`; an empty group is a dimension of size 1."""

    value: int
    groups: Groups


@dataclass(frozen=True, slots=True)
class Load:
    """A leaf: the input, a stored parameter or constant, or what is computed from a parameter by itself."""

    result: int
    layout: Layout
    leaf: Leaf
    pauli: PauliProgram | None = None
    """How the matrix of a `pauli` gate is made."""


COMPUTED_KINDS = ("ry", "cz", "orthogonal", "pauli")
"""Kinds whose matrix is not what is stored."""


def is_computed(load: Load) -> bool:
    """Return whether a leaf is no stored tensor, but computed from one or from nothing."""
    gate = load.leaf.gate
    return gate is not None and load.leaf.kind == "gate" and (gate.kind in COMPUTED_KINDS or gate.block_of is not None)


@dataclass(frozen=True, slots=True)
class Copy:
    """The same numbers in another layout, written as a tensor of the dimensions `groups`."""

    result: int
    layout: Layout
    source: Access
    groups: Groups


@dataclass(frozen=True, slots=True)
class Matmul:
    """`left @ right`: [batch, m, k] @ [batch, k, n] -> [batch, m, n]; without a batch two dimensions each."""

    result: int
    layout: Layout
    left: Access
    right: Access
    flops: int
    label: str

    @property
    def groups(self) -> Groups:
        """Return the dimensions of the result."""
        return (*self.left.groups[:-1], self.right.groups[-1])


@dataclass(frozen=True, slots=True)
class Multiply:
    """An elementwise product with broadcasting, group by group."""

    result: int
    layout: Layout
    left: Access
    right: Access
    flops: int
    label: str

    @property
    def groups(self) -> Groups:
        """Return the dimensions of the result."""
        return tuple(left or right for left, right in zip(self.left.groups, self.right.groups, strict=True))


@dataclass(frozen=True, slots=True)
class Resize:
    """The middle of three dimensions cut to its first indices, padded with zeros, or only renamed (a free reshape)."""

    result: int
    layout: Layout
    source: Access
    groups: Groups
    old_size: int
    new_size: int
    label: str


@dataclass(frozen=True, slots=True)
class Rotate:
    """A `pauli` gate applied by its structure to the last of two dimensions, padded or cut to the gate's sizes."""

    result: int
    layout: Layout
    source: Access
    angles: Access
    groups: Groups
    pauli: PauliProgram
    flops: int
    label: str


@dataclass(frozen=True, slots=True)
class PauliProgram:
    """What applies the orthogonal matrix of a `pauli` gate: [count, size] -> [count, size]."""

    plan: PauliPlan
    program: Program | None = None
    """For a power of two; None where there is nothing to apply."""
    halves: tuple[PauliProgram, PauliProgram] | None = None
    blocks: BlocksProgram | None = None
    """None for a half, which gets a part of what the whole has."""


@dataclass(frozen=True, slots=True)
class BlocksProgram:
    """What makes the blocks of `pauli` gates that are alike: [stack, angles] -> tensors with the stack in front."""

    plan: BlocksPlan
    programs: tuple[Program, ...] = ()
    halves: tuple[BlocksProgram, BlocksProgram] | None = None


@dataclass(frozen=True, slots=True)
class Tie:
    """An identity written out: the last dimension of `source` becomes the diagonal of `legs`, (new side, old side).

    Where the old side is no leg of the source, its last group is empty and the diagonal is constant along it.
    """

    result: int
    layout: Layout
    source: Access
    legs: tuple[int, int]
    label: str

    @property
    def groups(self) -> Groups:
        """Return the dimensions of the result."""
        return tuple((leg,) for leg in self.layout)


@dataclass(frozen=True, slots=True)
class Pick:
    """One slice of a value: the legs that the loop fixes go, each at the index of the slice.

    A view where they stand in front of the value's layout and the others in the order of `layout`; a copy elsewhere.
    """

    result: int
    layout: Layout
    value: int
    picked: Layout
    """The legs that go, in the order of the loop."""
    groups: Groups
    """The dimensions of the result, cut so that each is a run of the value's layout."""


def is_front(pick: Pick, layout: Layout) -> bool:
    """Return whether a pick from a value of a layout is a view, whole and in order."""
    count = len(pick.picked)
    return set(layout[:count]) == set(pick.picked) and layout[count:] == pick.layout


def pauli_gates(program: Program) -> Iterator[tuple[Gate, PauliProgram]]:
    """Yield the `pauli` gates of a program in the order in which it comes to them."""
    made: dict[int, Gate] = {}
    for operation in program.operations:
        if isinstance(operation, Load) and operation.leaf.gate is not None:
            made[operation.result] = operation.leaf.gate
            if operation.pauli is not None:
                yield operation.leaf.gate.block_of or operation.leaf.gate, operation.pauli
        if isinstance(operation, Rotate):
            yield made[operation.angles.value], operation.pauli


Operation = Load | Copy | Matmul | Multiply | Resize | Rotate | Tie | Pick


def sources(operation: Operation) -> tuple[Access, ...]:
    """Return what an operation reads."""
    if isinstance(operation, Matmul | Multiply):
        return operation.left, operation.right
    if isinstance(operation, Load):
        return ()
    if isinstance(operation, Rotate):
        return operation.source, operation.angles
    if isinstance(operation, Pick):
        return (Access(operation.value, (operation.picked, *operation.groups)),)
    return (operation.source,)


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
    rows: int
    """How many legs of `plan.output` are the first dimension of the result: the batch, or a matrix's rows."""
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
