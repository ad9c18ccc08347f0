"""What the steps of a program ask of a machine, forward and backward: products, copies, elementwise operations.

A product has one more for every operand that needs a gradient, and a copy into another order goes back by another copy.
"""

import math
from dataclasses import replace

from quanta_compiler.lowering.account import ELEMENT_BYTES, Executed, Making, Operand, Resized, StepCost
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.program import Access, Copy, Groups, Layout, Matmul, Multiply, Program, sources
from quanta_compiler.predict.rotations import making_work, passes_work
from quanta_compiler.predict.work import Operation, Pass, Permutation, Product, Work, joined


def program_work(program: Program) -> Work:
    """Return the work of a batch of the size that a program was planned for, its input requiring a gradient."""
    return joined(map(_work, program_cost(program).steps))


def _work(step: StepCost) -> Work:
    origin = step.origin
    if isinstance(origin, Making):
        return making_work(origin)
    if isinstance(origin, Resized):
        return _resize(origin)
    if not isinstance(origin, Executed):
        return passes_work(origin)
    match origin.operation:
        case Matmul():
            return _matmul(origin, origin.operation)
        case Multiply():
            return _multiply(origin, origin.operation)
        case Copy():
            return _copy(origin, origin.operation)
    raise AssertionError("ties and picks stand in operators only")


def _volume(step: Executed, legs: Layout) -> int:
    return math.prod(step.program.plan.sizes[leg] for leg in legs)


def _bytes(step: Executed, legs: Layout) -> int:
    return ELEMENT_BYTES * _volume(step, legs)


def _matmul(step: Executed, operation: Matmul) -> Work:
    left, right = step.operands
    *lead, rows, inner = (_volume(step, group) for group in operation.left.groups)
    columns, batch = _volume(step, operation.right.groups[-1]), math.prod(lead)
    to_left = Product(rows, columns, inner, batch)
    to_right = Product(inner, rows, columns, batch, is_transposed=True)
    # Of a stored matrix that is read turned over, torch computes the transpose of the gradient.
    if not lead and _is_permuted(step, operation.left, left):
        to_left = Product(inner, columns, rows)
    if not lead and _is_permuted(step, operation.right, right):
        to_right = Product(columns, rows, inner, is_transposed=True)
    gathered = _gathered(step, operation)
    backward: list[Operation] = []
    for access, operand, gradient in ((operation.right, right, to_right), (operation.left, left, to_left)):
        if operand.needs_grad:
            again = replace(gradient, is_one_by_one=bool(gathered))
            backward += [*gathered, again, *_restored(step, access, operand)]
    return Work((Product(rows, inner, columns, batch),), tuple(backward))


def _is_permuted(step: Executed, access: Access, operand: Operand) -> bool:
    """Return whether a value is read with its dimensions in another order than they have in memory."""
    places = [operand.layout.index(group[0]) for group in access.groups if _volume(step, group) > 1]
    return places != sorted(places)


def _restored(step: Executed, access: Access, operand: Operand) -> tuple[Permutation, ...]:
    """Return the copy that brings the gradient of a permuted batch of matrices back into the order of its value.

    There is none where the value is read with the dimensions that it was made with: its maker gets the gradient in
    another order then.
    """
    if len(access.groups) == 2 or not _is_viewed(access, operand.groups):
        return ()
    return _permutation(step, _flat(access.groups), operand.layout)


def _is_viewed(access: Access, made: Groups) -> bool:
    """Return whether a value is read with other dimensions than it was made with, their order aside."""
    return sorted(group for group in access.groups if group) != sorted(group for group in made if group)


def _gathered(step: Executed, operation: Matmul) -> tuple[Permutation, ...]:
    """Return the copy that a batch of matrices costs each gradient where that of the result is in an order of its own.

    If its innermost dimension is that of the batch, torch copies matrix after matrix.
    """
    found = [
        (reader, access)
        for reader in step.program.operations[operation.result + 1 :]
        for access in sources(reader)
        if access.value == operation.result
    ]
    if not found or len(operation.groups) == 2:
        return ()
    ((reader, access),) = found
    if _is_viewed(access, operation.groups) or not isinstance(reader, Copy | Matmul):
        return ()
    stored = reader.layout if isinstance(reader, Copy) else _flat(access.groups)
    last = next((leg for leg in reversed(stored) if _volume(step, (leg,)) > 1), None)
    if last is None or last not in operation.groups[0]:
        return ()
    return tuple(replace(copy, is_one_by_one=True) for copy in _permutation(step, stored, operation.layout))


def _flat(groups: Groups) -> Layout:
    return tuple(leg for group in groups for leg in group)


def _permutation(step: Executed, old: Layout, new: Layout, is_transpose: bool = False) -> tuple[Permutation, ...]:
    """Return the copy of legs stored as `old` into the order `new`; nothing where that is the same memory."""
    sizes = step.program.plan.sizes
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


def _copy(step: Executed, operation: Copy) -> Work:
    (source,) = step.operands
    is_transpose = len([group for group in operation.source.groups if _volume(step, group) > 1]) == 2
    there = _permutation(step, source.layout, operation.layout, is_transpose)
    is_copied_back = source.needs_grad and _is_viewed(operation.source, source.groups)
    return Work(there, _permutation(step, operation.layout, source.layout, is_transpose) if is_copied_back else ())


def _multiply(step: Executed, operation: Multiply) -> Work:
    """Return an elementwise product with broadcasting, and what its gradients take."""
    sides = list(zip((operation.left, operation.right), step.operands, strict=True))
    whole, moved = _volume(step, operation.layout), _bytes(step, operation.layout)
    inner = _inner(step, operation)
    backward: list[Operation] = []
    for (access, operand), (other, _) in zip(sides, reversed(sides), strict=True):
        if not operand.needs_grad:
            continue
        backward.append(Pass(2 * moved + _bytes(step, _flat(other.groups)), whole, inner))
        if _volume(step, _flat(access.groups)) < whole:
            # What is repeated in forward is summed up in backward.
            backward.append(Pass(moved + _bytes(step, _flat(access.groups)), whole))
    read = sum(_bytes(step, _flat(access.groups)) for access, _ in sides)
    return Work((Pass(read + moved, operation.flops, inner),), tuple(backward))


def _inner(step: Executed, operation: Multiply) -> int | None:
    """Return how many numbers in a row both sides have, or one of them repeats; None where nothing is repeated."""
    runs: list[tuple[bool, bool, int]] = []
    for left, right in zip(operation.left.groups, operation.right.groups, strict=True):
        size = _volume(step, left or right)
        if size == 1:
            continue
        present = bool(left), bool(right)
        if runs and runs[-1][:2] == present:
            runs[-1] = (*present, runs[-1][2] * size)
        else:
            runs.append((*present, size))
    return runs[-1][2] if len(runs) > 1 else None


def _resize(step: Resized) -> Work:
    """Return what cuts or pads rows at the end: what is smaller is copied, what is larger filled and copied into."""
    kept = ELEMENT_BYTES * step.rows * min(step.old, step.new)
    filled = ELEMENT_BYTES * step.rows * max(step.old, step.new)
    cut: tuple[Operation, ...] = (Pass(2 * kept),)
    padded: tuple[Operation, ...] = (Pass(filled), Pass(2 * kept))
    there, back = (cut, padded) if step.new < step.old else (padded, cut)
    return Work(there, back if step.needs_grad else ())
