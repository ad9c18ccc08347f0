"""The work of making the matrices of rotations from what is stored, as torch does it for either backend."""

import math
from collections.abc import Iterable, Sequence

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import made_matrix
from quanta_compiler.kinds.kind import Form
from quanta_compiler.lowering.account import ELEMENT_BYTES, Elementwise, Making
from quanta_compiler.lowering.functions import applying, making
from quanta_compiler.lowering.program import Call, Function, Maker, Split, Turn, sources
from quanta_compiler.lowering.rotation_costs import angle_passes, ry_passes, turn_passes
from quanta_compiler.lowering.small_matrices import BlockGroup, Pair, block_groups, contracted_pairs
from quanta_compiler.lowering.table import TableEntry
from quanta_compiler.planner.pauli import plan_blocks, plan_pauli
from quanta_compiler.planner.plan import Plan
from quanta_compiler.predict.work import MatrixFunction, Operation, Pass, Product, Work, joined


def passes_work(passes: Iterable[Elementwise]) -> Work:
    """Return operations one after the other; the gradient of each takes one like it for every operand."""
    parts = []
    for step in passes:
        walk = Pass(ELEMENT_BYTES * (step.operands + 1) * step.numbers, step.flops)
        backward = (walk,) * (step.operands * step.times) if step.needs_grad else ()
        parts.append(Work((walk,) * step.times, backward))
    return joined(parts)


def making_work(making: Making) -> Work:
    """Return a step of the function that makes matrices."""
    step, count, trains = making.step, making.count, making.needs_grad
    flops, rows, columns = count * step.flops, math.prod(step.shape[:-1]), step.shape[-1]
    match step.op:
        case "place":
            return Work((), ())
        case "matmul":
            inner = flops // (2 * count * rows * columns)
            return product_work(Product(rows, inner, columns, count), trains, trains and not step.is_right_fixed)
        case "elementwise":
            return passes_work([Elementwise(count * rows * columns, flops, trains)])
        case "exponential":
            # The gradient of an exponential is a corner of that of a matrix twice as large.
            larger = MatrixFunction(2 * rows, 2 * columns, count, 8 * flops, is_double=True)
            function = MatrixFunction(rows, columns, count, flops, is_double=True)
            return Work((function,), (larger,) if trains else ())
        case "solution":
            again = MatrixFunction(rows, columns, count, 2 * count * rows * rows * columns, is_double=False)
            function = MatrixFunction(rows, columns, count, flops, is_double=False)
            return Work((function,), (again, Product(rows, columns, rows, count)) if trains else ())


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
            if part.form is Form.ANGLE:
                counts[part.parameter, part.angle or 0] = math.prod(source.sizes[leg] for leg in part.per)
                # One call makes all RY: where one trains, every product with one has a gradient.
                trains = trains or part.trains
    parts = [passes_work(ry_passes(sum(counts.values()), trains))] if counts else []
    blocks = [source.gate for _, source in sources if source.gate.parts]
    if blocks:
        parts += [_group_work(group, trains) for group in block_groups(blocks, sources[0][1].sizes)]
    owners: set[str] = set()
    for entry, source in sources:
        gate = source.gate
        if gate.form not in (Form.FUNCTION, Form.CIRCUIT) or gate.parameter in owners:
            continue
        owners.add(gate.parameter)
        if gate.form is Form.FUNCTION:
            steps = made_matrix(gate, entry.rows, entry.columns).steps
            parts += [making_work(Making(step, entry.blocks, gate.trains)) for step in steps]
        else:
            rows, columns = (entry.columns, entry.rows) if gate.transpose else (entry.rows, entry.columns)
            parts.append(_pauli_work(gate, entry.blocks, rows, columns))
    return joined(parts)


def _group_work(group: BlockGroup, trains: bool) -> Work:
    """Return what makes the matrices of blocks: every factor from five numbers, and products of neighbours."""
    side, matrices, left = group.side, sum(group.copies), group.depth
    parts = [product_work(Product(1, 5, side * side, matrices * left), trains, False)]
    while left > 1:
        left //= 2
        parts.append(product_work(Product(side, side, side, matrices * left), trains, trains))
    return joined(parts)


def _contraction_work(plan: Plan, needs_grad: list[bool], batch: int = 1) -> Work:
    """Return the steps of a plan that only contracts, each for a batch; `needs_grad` are the leaves that train."""
    parts: list[Work] = []
    for pair in contracted_pairs(plan):
        sides = needs_grad[pair.left], needs_grad[pair.right]
        parts.append(_pair_work(plan, pair, batch, sides))
        needs_grad.append(any(sides))
    return joined(parts)


def _pair_work(plan: Plan, pair: Pair, batch: int, needs_grad: tuple[bool, bool]) -> Work:
    left, right, kept = set(pair.left_legs), set(pair.right_legs), set(pair.legs)
    if left | right == kept:
        numbers = batch * plan.size(pair.legs)
        walk = Pass(3 * ELEMENT_BYTES * numbers, numbers)
        return Work((walk,), (walk,) * sum(needs_grad))
    batch *= plan.size(sorted(left & right & kept))
    rows, columns = plan.size(sorted(left - right)), plan.size(sorted(right - left))
    return product_work(Product(rows, plan.size(sorted((left & right) - kept)), columns, batch), *needs_grad)


def _pauli_work(gate: Gate, blocks: int, rows: int, columns: int) -> Work:
    alike = gate.matrix.two_design(rows, columns)
    maker = making(plan_blocks(*alike, blocks))
    function = applying(plan_pauli(*alike, min(rows, columns), transpose=rows < columns))
    trained = gate.trains
    return joined([_made(maker, trained), _applied(function, blocks, trained, input_needs_grad=False)])


def _made(maker: Maker, needs_grad: bool) -> Work:
    """Return what makes the blocks of a stack of gates."""
    if maker.halves:
        between = passes_work(angle_passes(maker.stack * maker.pairs, needs_grad))
        return joined([*(_made(half, needs_grad) for half in maker.halves), between])
    parts = [passes_work(ry_passes(maker.stack * maker.angles, needs_grad))] if maker.programs else []
    for program in maker.programs:
        gates = [leaf.gate for leaf in program.plan.leaves]
        trained = [needs_grad and gate is not None and gate.form is Form.ANGLE for gate in gates]
        parts.append(_contraction_work(program.plan, trained))
    return joined(parts)


def _applied(function: Function, batch: int, trained: bool, *, input_needs_grad: bool) -> Work:
    """Return what a function does to its vectors, once for every matrix of a batch."""
    plan = function.program.plan
    if plan.steps:
        needs_grad = [input_needs_grad if leaf.gate is None else trained for leaf in plan.leaves]
        return _contraction_work(plan, needs_grad, batch)
    known = [input_needs_grad]
    parts: list[Work] = []
    for operation in function.program.operations[1:]:
        known.append(known[sources(operation)[0].value] or (trained and not isinstance(operation, Split)))
        count = batch * function.count
        moved = (Elementwise(count * plan.sizes[operation.layout[-1]], 0, trained),)
        match operation:
            case Call(source=source, function=called):
                parts.append(_applied(called, batch, trained, input_needs_grad=known[source.value]))
            case Turn(pairs=pairs):
                rest = moved if pairs < plan.sizes[operation.layout[-1]] else ()
                parts.append(passes_work((*turn_passes(count * pairs, trained), *rest)))
            case _:
                parts.append(passes_work(moved))
    return joined(parts)
