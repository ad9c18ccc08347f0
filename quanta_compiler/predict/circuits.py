"""What a compiled circuit asks of a machine: the steps that its module runs, forward and backward, one by one.

On the `torch` backend that is the program (lowering/program.py) and what torch's autograd makes of it: a product has
one more for every operand that needs a gradient, and a copy into another order goes back by another copy. On the
`fused` backend it is one walk over the gate table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.ir.parameters import TRAINED_KINDS
from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.lowering.program import (
    Access,
    Copy,
    Groups,
    Layout,
    Load,
    Matmul,
    Multiply,
    Program,
    Resize,
    sources,
)
from quanta_compiler.lowering.program import Operation as ProgramOperation
from quanta_compiler.lowering.table import GateTable, lower_table
from quanta_compiler.planner.plan import Leaf
from quanta_compiler.predict.work import FusedPass, Operation, Pass, Permutation, Product, Work, is_trained

BACKENDS = ("torch", "fused")


def circuit_work(compiled: CompiledCircuit, backend: str = "torch") -> Work:
    """Return the work of a batch of the size that the circuit was planned for, its input requiring a gradient.

    Raises:
        ValueError: there is no such backend.

    """
    if backend not in BACKENDS:
        raise ValueError(f"{backend!r} is no backend that works by itself: choose one of {', '.join(BACKENDS)}")
    tokens = compiled.spec.tokens
    if backend == "torch":
        return _program_work(compiled.apply)
    table = lower_table(compiled.circuit)
    made, taken_apart = _composed(table)
    return Work((*made, FusedPass(table, tokens)), (FusedPass(table, tokens, backward=True), *taken_apart))


def dense_work(in_features: int, out_features: int, tokens: int, trained: bool = True) -> Work:
    """Return the work of `x @ weight.t()` with a weight `[out_features, in_features]`; frozen, it has no gradient."""
    forward = Product(tokens, in_features, out_features)
    backward = [Product(tokens, out_features, in_features)]
    if trained:
        backward.append(Product(out_features, tokens, in_features, is_transposed=True))
    return Work((forward,), tuple(backward))


def _composed(table: GateTable) -> tuple[list[Product], list[Product]]:
    """Return the products that make low-rank matrices for the kernel, and those that take their gradients apart."""
    forward: list[Product] = []
    backward: list[Product] = []
    for entry in table.entries:
        gate = None if entry.matrix is None or entry.matrix.factor else entry.matrix.gate
        if gate is None or gate.kind != "lowrank" or gate.rank is None:
            continue
        rows, columns = (entry.columns, entry.rows) if gate.transpose else (entry.rows, entry.columns)
        forward.append(Product(rows, gate.rank, columns, entry.blocks))
        if is_trained(entry):
            backward.append(Product(gate.rank, rows, columns, entry.blocks, is_transposed=True))
            backward.append(Product(rows, columns, gate.rank, entry.blocks))
    return forward, backward


@dataclass(frozen=True, slots=True)
class _Value:
    """What the walk knows of a tensor."""

    layout: Layout
    needs_grad: bool
    groups: Groups = ()
    """The dimensions that it was made with; none for what is stored."""


@dataclass(slots=True)
class _Walk:
    program: Program
    readers: Mapping[int, ProgramOperation]
    """The operation that reads a value: there is one at most."""
    values: dict[int, _Value] = field(default_factory=dict)
    forward: list[Operation] = field(default_factory=list)
    backward: list[Operation] = field(default_factory=list)
    """In reverse: the last step's come first when they run."""

    def volume(self, legs: Layout) -> int:
        return math.prod(self.program.plan.sizes[leg] for leg in legs)

    def bytes(self, legs: Layout) -> int:
        return ELEMENT_BYTES * self.volume(legs)

    def add(self, forward: Operation, *backward: Operation) -> None:
        """Add a step; its backward is given in the order in which it runs."""
        self.forward.append(forward)
        self.backward.extend(reversed(backward))


def _program_work(program: Program) -> Work:
    walk = _Walk(program, {one.value: reader for reader in program.operations for one in sources(reader)})
    tokens = program.plan.tokens
    _resize(walk, tokens, program.in_features, program.in_size, needs_grad=True)
    for operation in program.operations:
        if isinstance(operation, Load):
            walk.values[operation.result] = _Value(
                operation.layout, _is_trained(operation.leaf), _made(program, operation)
            )
        elif isinstance(operation, Matmul):
            _matmul(walk, operation)
        elif isinstance(operation, Multiply):
            _multiply(walk, operation)
        elif isinstance(operation, Copy):
            _copy(walk, operation)
        else:
            assert isinstance(operation, Resize), "ties and picks stand in operators only"
            _cut_or_pad(walk, operation)
    needs_grad = walk.values[program.output].needs_grad
    _resize(walk, tokens, program.out_size, program.out_features, needs_grad=needs_grad)
    return Work(tuple(walk.forward), tuple(reversed(walk.backward)))


def _made(program: Program, load: Load) -> Groups:
    """Return the dimensions of a leaf: those of the input are the batch and all others."""
    batch = program.plan.batch
    if load.leaf.kind != "input" or batch is None:
        return tuple((leg,) for leg in load.layout)
    return (batch,), tuple(leg for leg in load.layout if leg != batch)


def _is_trained(leaf: Leaf) -> bool:
    if leaf.gate is None:
        return leaf.kind == "input"
    return leaf.gate.kind in TRAINED_KINDS and not leaf.gate.frozen


def _matmul(walk: _Walk, operation: Matmul) -> None:
    left, right = walk.values[operation.left.value], walk.values[operation.right.value]
    *lead, rows, inner = map(walk.volume, operation.left.groups)
    product = Product(rows, inner, walk.volume(operation.right.groups[-1]), math.prod(lead))
    walk.values[operation.result] = _Value(operation.layout, left.needs_grad or right.needs_grad, operation.groups)
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


def _is_permuted(walk: _Walk, access: Access) -> bool:
    """Return whether a value is read with its dimensions in another order than they have in memory."""
    layout = walk.values[access.value].layout
    places = [layout.index(group[0]) for group in access.groups if walk.volume(group) > 1]
    return places != sorted(places)


def _restored(walk: _Walk, access: Access) -> tuple[Permutation, ...]:
    """Return the copy that brings the gradient of a permuted batch of matrices back into the order of its value.

    There is none where the value is read with the dimensions that it was made with: its maker gets the gradient in
    another order then.
    """
    if len(access.groups) == 2 or not _is_viewed(walk, access):
        return ()
    return _permutation(walk, _flat(access.groups), walk.values[access.value].layout)


def _is_viewed(walk: _Walk, access: Access) -> bool:
    """Return whether a value is read with other dimensions than it was made with, their order aside."""
    made = walk.values[access.value].groups
    return sorted(group for group in access.groups if group) != sorted(group for group in made if group)


def _gathered(walk: _Walk, operation: Matmul) -> tuple[Permutation, ...]:
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


def _permutation(walk: _Walk, old: Layout, new: Layout, is_transpose: bool = False) -> tuple[Permutation, ...]:
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


def _copy(walk: _Walk, operation: Copy) -> None:
    source = walk.values[operation.source.value]
    walk.values[operation.result] = _Value(operation.layout, source.needs_grad, operation.groups)
    is_transpose = len([group for group in operation.source.groups if walk.volume(group) > 1]) == 2
    there = _permutation(walk, source.layout, operation.layout, is_transpose)
    if not there:
        return
    is_copied_back = source.needs_grad and _is_viewed(walk, operation.source)
    back = _permutation(walk, operation.layout, source.layout, is_transpose)
    walk.add(there[0], *(back if is_copied_back else ()))


def _multiply(walk: _Walk, operation: Multiply) -> None:
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
    walk.values[operation.result] = _Value(
        operation.layout, any(value.needs_grad for _, value in sides), operation.groups
    )


def _inner(walk: _Walk, operation: Multiply) -> int | None:
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


def _cut_or_pad(walk: _Walk, operation: Resize) -> None:
    source = walk.values[operation.source.value]
    groups = source.groups if operation.new_size == operation.old_size else operation.groups
    walk.values[operation.result] = _Value(operation.layout, source.needs_grad, groups)
    before, _, after = map(walk.volume, operation.groups)
    _resize(walk, before, operation.old_size * after, operation.new_size * after, source.needs_grad)


def _resize(walk: _Walk, rows: int, old: int, new: int, needs_grad: bool) -> None:
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
