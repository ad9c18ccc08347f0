"""What the steps of a program ask of a machine, forward and backward: products, copies, elementwise operations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.lowering.program import (
    Access,
    Copy,
    Groups,
    Layout,
    Matmul,
    Multiply,
    Program,
    Resize,
    sources,
)
from quanta_compiler.lowering.program import Operation as ProgramOperation
from quanta_compiler.predict.work import Operation, Pass, Permutation, Product, Work


@dataclass(frozen=True, slots=True)
class Value:
    """What the walk knows of a tensor."""

    layout: Layout
    needs_grad: bool
    groups: Groups = ()
    """The dimensions that it was made with; none for what is stored."""


@dataclass(slots=True)
class Walk:
    """A program gone through in order: what is known of its values, and the work so far."""

    program: Program
    readers: Mapping[int, ProgramOperation]
    """The operation that reads a value: there is one at most."""
    values: dict[int, Value] = field(default_factory=dict)
    forward: list[Operation] = field(default_factory=list)
    backward: list[Operation] = field(default_factory=list)
    """In reverse: the last step's come first when they run."""
    turns: Mapping[tuple[str, int | None], Gate] = field(default_factory=dict)
    """The RY, by what they turn by: one call computes all their matrices."""
    turns_train: bool = False
    """Whether one of them trains: every product with one has a gradient then."""
    trains: bool | None = None
    """Whether the blocks of a `pauli` gate train; None for a program with gates of its own."""
    computed: set[str] = field(default_factory=set)
    """What has been computed already of what serves several leaves."""

    def volume(self, legs: Layout) -> int:
        """Return the number of elements over some legs."""
        return math.prod(self.program.plan.sizes[leg] for leg in legs)

    def bytes(self, legs: Layout) -> int:
        """Return the bytes of a tensor over some legs."""
        return ELEMENT_BYTES * self.volume(legs)

    def add(self, forward: Operation, *backward: Operation) -> None:
        """Add a step; its backward is given in the order in which it runs."""
        self.forward.append(forward)
        self.backward.extend(reversed(backward))

    def include(self, work: Work) -> None:
        """Add the work of several steps."""
        self.forward.extend(work.forward)
        self.backward.extend(reversed(work.backward))


def matmul(walk: Walk, operation: Matmul) -> None:
    """Add a product, and one for the gradient of each side that needs it."""
    left, right = walk.values[operation.left.value], walk.values[operation.right.value]
    *lead, rows, inner = map(walk.volume, operation.left.groups)
    product = Product(rows, inner, walk.volume(operation.right.groups[-1]), math.prod(lead))
    walk.values[operation.result] = Value(operation.layout, left.needs_grad or right.needs_grad, operation.groups)
    gathered = _gathered(walk, operation)
    backward: list[Operation] = []
    for access, value, gradient in (
        (operation.right, right, _right_gradient(product, not lead and _is_permuted(walk, operation.right))),
        (operation.left, left, _left_gradient(product, not lead and _is_permuted(walk, operation.left))),
    ):
        if value.needs_grad:
            backward += [*gathered, replace(gradient, is_one_by_one=bool(gathered)), *_restored(walk, access)]
    walk.add(product, *backward)


def _left_gradient(product: Product, is_turned: bool) -> Product:
    """Return `grad @ right.t()`; where the left side is a stored matrix turned over, torch computes the transpose."""
    rows, inner, columns = product.rows, product.inner, product.columns
    return Product(inner, columns, rows) if is_turned else Product(rows, columns, inner, product.batch)


def _right_gradient(product: Product, is_turned: bool) -> Product:
    """Return `left.t() @ grad`, or its transpose likewise."""
    rows, inner, columns = product.rows, product.inner, product.columns
    if is_turned:
        return Product(columns, rows, inner, is_transposed=True)
    return Product(inner, rows, columns, product.batch, is_transposed=True)


def _is_permuted(walk: Walk, access: Access) -> bool:
    """Return whether a value is read with its dimensions in another order than they have in memory."""
    layout = walk.values[access.value].layout
    places = [layout.index(group[0]) for group in access.groups if walk.volume(group) > 1]
    return places != sorted(places)


def _restored(walk: Walk, access: Access) -> tuple[Permutation, ...]:
    """Return the copy that brings the gradient of a permuted batch of matrices back into the order of its value.

    There is none where the value is read with the dimensions that it was made with: its maker gets the gradient in
    another order then.
    """
    if len(access.groups) == 2 or not _is_viewed(walk, access):
        return ()
    return _permutation(walk, _flat(access.groups), walk.values[access.value].layout)


def _is_viewed(walk: Walk, access: Access) -> bool:
    """Return whether a value is read with other dimensions than it was made with, their order aside."""
    made = walk.values[access.value].groups
    return sorted(group for group in access.groups if group) != sorted(group for group in made if group)


def _gathered(walk: Walk, operation: Matmul) -> tuple[Permutation, ...]:
    """Return the copy that a batch of matrices costs each gradient where that of the result is in an order of its own.

    If its innermost dimension is that of the batch, torch copies matrix after matrix.
    """
    reader = walk.readers.get(operation.result)
    if reader is None or len(operation.groups) == 2:
        return ()
    access = next(one for one in sources(reader) if one.value == operation.result)
    if _is_viewed(walk, access) or not isinstance(reader, Copy | Matmul):
        return ()
    stored = reader.layout if isinstance(reader, Copy) else _flat(access.groups)
    last = next((leg for leg in reversed(stored) if walk.volume((leg,)) > 1), None)
    if last is None or last not in operation.groups[0]:
        return ()
    return tuple(replace(copy, is_one_by_one=True) for copy in _permutation(walk, stored, operation.layout))


def _flat(groups: Groups) -> Layout:
    return tuple(leg for group in groups for leg in group)


def _permutation(walk: Walk, old: Layout, new: Layout, is_transpose: bool = False) -> tuple[Permutation, ...]:
    """Return the copy of legs stored as `old` into the order `new`; nothing where that is the same memory."""
    sizes = walk.program.plan.sizes
    strides, stride = {}, 1
    for leg in reversed(old):
        strides[leg] = stride
        stride *= sizes[leg]
    joined: list[tuple[int, int]] = []
    for leg in new:
        if sizes[leg] == 1:
            continue
        if joined and joined[-1][1] == strides[leg] * sizes[leg]:
            joined[-1] = (joined[-1][0] * sizes[leg], strides[leg])
        else:
            joined.append((sizes[leg], strides[leg]))
    if len(joined) < 2:
        return ()
    return (Permutation(tuple(size for size, _ in joined), tuple(stride for _, stride in joined), is_transpose),)


def copy(walk: Walk, operation: Copy) -> None:
    """Add a copy into another order, and the way back."""
    source = walk.values[operation.source.value]
    walk.values[operation.result] = Value(operation.layout, source.needs_grad, operation.groups)
    is_transpose = len([group for group in operation.source.groups if walk.volume(group) > 1]) == 2
    there = _permutation(walk, source.layout, operation.layout, is_transpose)
    if not there:
        return
    is_copied_back = source.needs_grad and _is_viewed(walk, operation.source)
    back = _permutation(walk, operation.layout, source.layout, is_transpose)
    walk.add(there[0], *(back if is_copied_back else ()))


def multiply(walk: Walk, operation: Multiply) -> None:
    """Add an elementwise product with broadcasting, and what its gradients take."""
    sides = [(access, walk.values[access.value]) for access in (operation.left, operation.right)]
    whole = walk.volume(operation.layout)
    inner = _inner(walk, operation)
    backward: list[Operation] = []
    for (access, value), (other, _) in zip(sides, reversed(sides), strict=True):
        if not value.needs_grad:
            continue
        read = walk.bytes(operation.layout) + walk.bytes(_flat(other.groups))
        backward.append(Pass(read + walk.bytes(operation.layout), whole, inner))
        if walk.volume(_flat(access.groups)) < whole:
            # What is repeated in forward is summed up in backward.
            backward.append(Pass(walk.bytes(operation.layout) + walk.bytes(_flat(access.groups)), whole))
    moved = sum(walk.bytes(_flat(access.groups)) for access, _ in sides) + walk.bytes(operation.layout)
    walk.add(Pass(moved, operation.flops, inner), *backward)
    walk.values[operation.result] = Value(
        operation.layout, any(value.needs_grad for _, value in sides), operation.groups
    )


def _inner(walk: Walk, operation: Multiply) -> int | None:
    """Return how many numbers in a row both sides have, or one of them repeats; None where nothing is repeated."""
    runs: list[tuple[bool, bool, int]] = []
    for left, right in zip(operation.left.groups, operation.right.groups, strict=True):
        size = walk.volume(left or right)
        if size == 1:
            continue
        present = bool(left), bool(right)
        if runs and runs[-1][:2] == present:
            runs[-1] = (*present, runs[-1][2] * size)
        else:
            runs.append((*present, size))
    return runs[-1][2] if len(runs) > 1 else None


def cut_or_pad(walk: Walk, operation: Resize) -> None:
    """Add what a `slice` gate moves."""
    source = walk.values[operation.source.value]
    groups = source.groups if operation.new_size == operation.old_size else operation.groups
    walk.values[operation.result] = Value(operation.layout, source.needs_grad, groups)
    before, _, after = map(walk.volume, operation.groups)
    resize(walk, before, operation.old_size * after, operation.new_size * after, source.needs_grad)


def resize(walk: Walk, rows: int, old: int, new: int, needs_grad: bool) -> None:
    """Add what cuts or pads the end of every row; what is smaller is copied, what is larger filled and copied into."""
    if old == new or (rows == 1 and new < old):
        return
    kept, filled = 2 * ELEMENT_BYTES * rows * min(old, new), ELEMENT_BYTES * rows * max(old, new)
    cut: Sequence[Operation] = (Pass(kept),)
    padded: Sequence[Operation] = (Pass(filled), Pass(kept))
    there, back = (cut, padded) if new < old else (padded, cut)
    walk.forward += there
    if needs_grad:
        walk.backward += reversed(back)
