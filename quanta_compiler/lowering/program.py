"""The program: what a plan becomes when every tensor has a layout in memory.

A *value* is a contiguous tensor whose legs stand in the order of its layout. An *access* reads a value as a tensor
whose dimensions are groups of legs; every group is a run of neighbouring legs of the layout, so an access is a view and
never moves data. What moves data is an operation of its own (`Copy`).
"""

from __future__ import annotations

from dataclasses import dataclass

from quanta_compiler.planner.plan import Leaf, Plan

Layout = tuple[int, ...]
Groups = tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A value read as a tensor whose dimensions are `groups`; an empty group is a dimension of size 1."""

    value: int
    groups: Groups


@dataclass(frozen=True, slots=True)
class Load:
    """A leaf: the input, or a stored parameter or constant."""

    result: int
    layout: Layout
    leaf: Leaf


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


Operation = Load | Copy | Matmul | Multiply | Resize | Tie


def sources(operation: Operation) -> tuple[Access, ...]:
    """Return what an operation reads."""
    if isinstance(operation, Matmul | Multiply):
        return operation.left, operation.right
    if isinstance(operation, Load):
        return ()
    return (operation.source,)


@dataclass(frozen=True, slots=True)
class Program:
    """Operations in order, the last one's result being the output, in the layout `plan.output`."""

    plan: Plan
    operations: tuple[Operation, ...]
    in_features: int
    """The input's width as the user gives it: padded or truncated to the product of the circuit's input legs."""
    out_features: int
    """Likewise for the output."""
    in_size: int
    out_size: int

    @property
    def output(self) -> int:
        """Return the value that the program computes."""
        return self.operations[-1].result
