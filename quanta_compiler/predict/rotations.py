"""The work of making the matrices of rotations from what is stored, as torch does it for either backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.lowering.account import ELEMENT_BYTES, Books, StepCost
from quanta_compiler.lowering.lie_costs import is_trained, orthogonal_matrix
from quanta_compiler.lowering.rotation_costs import RY_FLOPS
from quanta_compiler.lowering.small_matrices import BlockGroup, Contraction, Pair, block_groups, contracted_plan
from quanta_compiler.lowering.table import TableEntry
from quanta_compiler.planner.pauli import plan_blocks, plan_pauli
from quanta_compiler.planner.plan import BlocksPlan, PauliPlan
from quanta_compiler.predict.work import MatrixFunction, Operation, Pass, Product, Work, both, joined


def elementwise(numbers: int, flops: int = 0, operands: int = 1, *, needs_grad: bool = True) -> Work:
    """Return one operation on so many numbers; its gradient takes one like it for every operand."""
    walk = Pass(ELEMENT_BYTES * (operands + 1) * numbers, flops)
    return Work((walk,), (walk,) * operands if needs_grad else ())


def ry_work(count: int, *, needs_grad: bool) -> Work:
    """Return what makes so many RY: angles halved, their cosines and sines, the sines negated, all put together."""
    steps = [elementwise(count, count, needs_grad=needs_grad) for _ in range(RY_FLOPS)]
    return joined([*steps, elementwise(RY_FLOPS * count, needs_grad=needs_grad)])


def orthogonal_work(gate: Gate, blocks: int, rows: int, columns: int) -> Work:
    """Return what makes the matrices of an `orthogonal` gate, in the steps that the report lists."""
    books = Books()
    orthogonal_matrix(books, gate, blocks, rows, columns)
    return joined(_of_step(step, gate) for step in books.steps)


def _of_step(step: StepCost, gate: Gate) -> Work:
    blocks, rows, columns = step.shape
    if step.op == "matmul":
        product = Product(rows, step.flops // (2 * blocks * rows * columns), columns, blocks)
        return product_work(product, is_trained(gate), is_trained(gate))
    function = MatrixFunction(rows, columns, blocks, step.flops, is_double=gate.map != "cayley")
    if not is_trained(gate):
        return Work((function,), ())
    if gate.map != "cayley":
        # The gradient of an exponential is a corner of that of a matrix twice as large.
        larger = MatrixFunction(2 * rows, 2 * columns, blocks, 8 * step.flops, is_double=True)
        return Work((function,), (larger,))
    again = MatrixFunction(rows, columns, blocks, 2 * blocks * rows * rows * columns, is_double=False)
    return Work((function,), (again, Product(rows, columns, rows, blocks)))


def product_work(product: Product, left_needs_grad: bool, right_needs_grad: bool) -> Work:
    """Return a product and the products that make the gradients of its sides."""
    rows, inner, columns, batch = product.rows, product.inner, product.columns, product.batch
    back: list[Operation] = []
    if right_needs_grad:
        back.append(Product(inner, rows, columns, batch, is_transposed=True))
    if left_needs_grad:
        back.append(Product(rows, columns, inner, batch))
    return Work((product,), tuple(back))


# What only the kernel needs: whole matrices of blocks and of `pauli` gates


def table_rotations(entries: Sequence[TableEntry]) -> Work:
    """Return what makes the matrices of all entries that are rotations; what several read is made once."""
    sources = [(entry, entry.matrix) for entry in entries if entry.matrix is not None]
    counts: dict[tuple[str, int], int] = {}
    trains = False
    for _, source in sources:
        for part in source.gate.parts or (source.gate,):
            if part.kind == "ry":
                counts[part.parameter, part.angle or 0] = math.prod(source.sizes[leg] for leg in part.per)
                # One call makes all RY: where one trains, every product with one has a gradient.
                trains = trains or is_trained(part)
    parts = [ry_work(sum(counts.values()), needs_grad=trains)] if counts else []
    blocks = [source.gate for _, source in sources if source.gate.parts]
    if blocks:
        parts += [_group_work(group, trains) for group in block_groups(blocks, sources[0][1].sizes)]
    owners: set[str] = set()
    for entry, source in sources:
        gate = source.gate
        rows, columns = (entry.columns, entry.rows) if gate.transpose else (entry.rows, entry.columns)
        if gate.kind in ("orthogonal", "pauli") and gate.parameter not in owners:
            owners.add(gate.parameter)
            whole = orthogonal_work if gate.kind == "orthogonal" else _pauli_work
            parts.append(whole(gate, entry.blocks, rows, columns))
    return joined(parts)


def _group_work(group: BlockGroup, trains: bool) -> Work:
    """Return what makes the matrices of blocks: every factor from five numbers, and products of neighbours."""
    side, matrices, left = group.side, sum(group.copies), group.depth
    parts = [product_work(Product(1, 5, side * side, matrices * left), trains, False)]
    while left > 1:
        left //= 2
        parts.append(product_work(Product(side, side, side, matrices * left), trains, trains))
    return joined(parts)


def _contraction_work(contraction: Contraction, needs_grad: list[bool], batch: int = 1) -> Work:
    """Return the pairs of a contraction, each for a batch of matrices; `needs_grad` are the leaves that train."""
    parts: list[Work] = []
    for pair in contraction.pairs:
        left, right = needs_grad[pair.left], needs_grad[pair.right]
        parts.append(_pair_work(contraction, pair, batch, (left, right)))
        needs_grad.append(left or right)
    return joined(parts)


def _pair_work(contraction: Contraction, pair: Pair, batch: int, needs_grad: tuple[bool, bool]) -> Work:
    left, right, kept = set(pair.left_legs), set(pair.right_legs), set(pair.legs)
    if left | right == kept:
        numbers = batch * contraction.volume(pair.legs)
        walk = Pass(3 * ELEMENT_BYTES * numbers, numbers)
        return Work((walk,), (walk,) * sum(needs_grad))
    batch *= contraction.volume(sorted(left & right & kept))
    rows, columns = contraction.volume(sorted(left - right)), contraction.volume(sorted(right - left))
    return product_work(Product(rows, contraction.volume(sorted((left & right) - kept)), columns, batch), *needs_grad)


def _pauli_work(gate: Gate, blocks: int, rows: int, columns: int) -> Work:
    assert gate.layers is not None
    size, kept = max(rows, columns), gate.rank_parameters
    plan = plan_pauli(size, gate.layers, kept, min(rows, columns), transpose=rows < columns)
    made = blocks_work(plan_blocks(size, gate.layers, kept, blocks), needs_grad=is_trained(gate))
    return both(made, _rotated(plan, blocks, trained=is_trained(gate), input_needs_grad=False))


def blocks_work(plan: BlocksPlan, *, needs_grad: bool) -> Work:
    """Return what makes the blocks of a stack of `pauli` gates."""
    if plan.halves is not None:
        halves = joined(blocks_work(half, needs_grad=needs_grad) for half in plan.halves)
        numbers = plan.stack * plan.turned
        return joined([halves, *(elementwise(numbers, numbers, needs_grad=needs_grad) for _ in ("half", "cos", "sin"))])
    if not plan.plans:
        return joined(())
    parts = [ry_work(plan.stack * plan.angles, needs_grad=needs_grad)]
    for block in plan.plans:
        contraction = contracted_plan(block)
        trained = [needs_grad and leaf.gate is not None and leaf.gate.kind == "ry" for leaf in contraction.leaves]
        parts.append(_contraction_work(contraction, trained))
    return joined(parts)


def _rotated(plan: PauliPlan, blocks: int, *, trained: bool, input_needs_grad: bool) -> Work:
    """Return a rotation of the vectors that a plan is made for, once for every block."""
    if plan.halves is not None:
        first, second = (
            joined(_rotated(half, blocks, trained=trained, input_needs_grad=needs_grad) for half in plan.halves)
            for needs_grad in (input_needs_grad, trained)
        )
        return joined([first, cosine_sine_work(plan, blocks * plan.count, needs_grad=trained), second])
    if plan.plan is None:
        return joined(())
    contraction = contracted_plan(plan.plan)
    needs_grad = [input_needs_grad if leaf.gate is None else trained for leaf in contraction.leaves]
    return _contraction_work(contraction, needs_grad, blocks)


def cosine_sine_work(plan: PauliPlan, count: int, *, needs_grad: bool) -> Work:
    """Return what turns pairs of two halves, and takes `count` vectors apart and puts them together."""
    assert plan.halves is not None
    parts = [elementwise(count * half.size, needs_grad=needs_grad) for half in plan.halves]
    for _ in plan.halves:
        # Two products and their sum.
        parts += [elementwise(count * plan.turned, count * plan.turned, 2, needs_grad=needs_grad) for _ in range(3)]
    parts += [elementwise(count * half.size, needs_grad=needs_grad) for half in plan.halves if half.size > plan.turned]
    return joined([*parts, elementwise(count * plan.size, needs_grad=needs_grad)])
