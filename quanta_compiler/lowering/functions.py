"""What a program calls for its `pauli` gates: functions that apply their matrices, and makers of the blocks for that.

A size that is no power of two is a sum n = n1 + n2, diag(U1, U2) C diag(V1, V2): this is the one place that says so.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds.two_design import pauli_angles, summed, turned_pairs
from quanta_compiler.lowering.chains import Called, Lowering
from quanta_compiler.lowering.program import Access, Call, Function, Join, Load, Maker, Operation, Program, Split, Turn
from quanta_compiler.planner.plan import Alike, Leaf, PartBlocks, PauliPart, PauliPlan, Plan

_WHOLE, _FIRST, _SECOND, _COUNT = range(4)
"""The legs of a function of two halves."""


@lru_cache(maxsize=256)
def applying(plan: PauliPlan) -> Function:
    """Return what applies the matrix of a gate, or its transpose."""
    return summed(plan.parts, lambda part: _of_part(plan, part), lambda first, second: _of_halves(plan, first, second))


def _named(plan: PauliPlan, size: int, blocks: int, program: Program) -> Function:
    matrix, ending = ("the transpose of a matrix", "_transposed") if plan.transpose else ("a matrix", "")
    about = f"Apply {matrix} {size} x {size}, planned for {plan.count} vectors: [n, {size}]."
    alike = size, plan.layers, plan.kept
    return Function(f"pauli_{size}{ending}", about, alike, size, plan.count, blocks, program)


def _of_part(plan: PauliPlan, part: PauliPart) -> Function:
    if part.plan is not None:
        return _named(plan, part.size, len(part.plan.leaves) - 1, _lowered(part.plan, part.size, part.size))
    nothing = Load(0, (_COUNT, _WHOLE), Leaf("input", (_COUNT, _WHOLE)))
    return _named(plan, part.size, 0, _on_halves(plan.count, part.size, 0, [nothing]))


def _of_halves(plan: PauliPlan, first: Function, second: Function) -> Function:
    """Return diag(U1, U2) C diag(V1, V2), or its transpose, where the last is applied first and C turns back."""
    sizes = first.size, second.size
    pairs = turned_pairs(sum(sizes), plan.kept)
    layouts = (_COUNT, _FIRST), (_COUNT, _SECOND)
    groups = [((_COUNT,), (leg,)) for leg in (_FIRST, _SECOND)]
    operations: list[Operation] = [Load(0, (_COUNT, _WHOLE), Leaf("input", (_COUNT, _WHOLE)))]

    def add(operation: Operation) -> int:
        operations.append(operation)
        return operation.result

    def applied(half: Function, side: int, value: int, start: int) -> int:
        if half.is_identity:
            return value
        source = Access(value, groups[side])
        return add(Call(len(operations), layouts[side], source, groups[side], half, first=start))

    # Behind cosines and sines stand the blocks of V1 and V2, then those of U1 and U2.
    of_v, of_u = 2, 2 + first.blocks + second.blocks
    before, after = (of_u, of_v) if plan.transpose else (of_v, of_u)
    state: list[int] = []
    for side, (half, start) in enumerate(((first, before), (second, before + first.blocks))):
        source = Access(0, ((_COUNT,), (_WHOLE,)))
        part = add(Split(len(operations), layouts[side], source, groups[side], side * first.size))
        state.append(applied(half, side, part, start))
    halves = Access(state[0], groups[0]), Access(state[1], groups[1])
    state = [
        add(Turn(len(operations), layouts[side], halves, groups[side], side, pairs, plan.transpose)) for side in (0, 1)
    ]
    state[0] = applied(first, 0, state[0], after)
    state[1] = applied(second, 1, state[1], after + first.blocks)
    halves = Access(state[0], groups[0]), Access(state[1], groups[1])
    add(Join(len(operations), (_COUNT, _WHOLE), halves, ((_COUNT,), (_WHOLE,))))
    return _named(plan, sum(sizes), 2 + 2 * (first.blocks + second.blocks), _on_halves(plan.count, *sizes, operations))


def _on_halves(count: int, first: int, second: int, operations: list[Operation]) -> Program:
    size = first + second
    plan = Plan(
        tokens=count,
        batch=_COUNT,
        leaves=(),
        steps=(),
        output=(_COUNT, _WHOLE),
        rows=1,
        sizes=(size, first, second, count),
        labels=("x", "a", "b", "n"),
    )
    return Program(plan, tuple(operations), in_features=size, out_features=size, in_size=size, out_size=size)


@lru_cache(maxsize=256)
def making(parts: tuple[PartBlocks, ...]) -> Maker:
    """Return what makes the blocks of all gates that are alike."""
    return summed(parts, _maker_of_part, _maker_of_halves)


def _maker(alike: Alike, what: str, stack: int) -> Maker:
    size, count, kept = alike
    angles = pauli_angles(*alike)
    columns = "" if kept is None else f", {kept} angles a column"
    layers = "1 layer" if count == 1 else f"{count} layers"
    about = f"Return the {what} of every matrix {size} x {size}, {layers}{columns}, of a stack: [n, {angles}]."
    return Maker(f"blocks_{size}", about, alike, stack, angles)


def _maker_of_part(part: PartBlocks) -> Maker:
    sizes = [one.size(leg for leg in one.output if leg != one.batch) for one in part.plans]
    programs = tuple(_lowered(one, 0, size) for one, size in zip(part.plans, sizes, strict=True))
    return replace(_maker((part.size, part.layers, part.kept), "blocks", part.stack), programs=programs)


def _maker_of_halves(first: Maker, second: Maker) -> Maker:
    size, layers, kept = first.alike[0] + second.alike[0], *first.alike[1:]
    maker = _maker((size, layers, kept), "cosines, sines and blocks", first.stack // 2)
    return replace(maker, pairs=turned_pairs(size, kept), halves=(first, second))


# Gates that are alike have the same plans.
@lru_cache(maxsize=256)
def _lowered(plan: Plan, in_size: int, out_size: int) -> Program:
    lowering = Lowering(plan, {})
    lowering.lower(len(plan.leaves) + len(plan.steps) - 1, plan.output, 1)
    return Program(plan, tuple(lowering.operations), in_size, out_size, in_size, out_size)


def functions_of(plan: Plan) -> dict[int, Called]:
    """Return what every `pauli` gate of a plan needs, by the tensor that it makes: a leaf, or a step's result."""
    paulis = [*(leaf.pauli for leaf in plan.leaves), *(step.pauli for step in plan.steps)]
    return {
        tensor: (applying(pauli) if pauli.parts else None, making(pauli.blocks))
        for tensor, pauli in enumerate(paulis)
        if pauli is not None and pauli.blocks
    }


def made_gates(program: Program) -> Iterator[tuple[Gate, Maker]]:
    """Yield the gates that blocks are made for, in the order in which a program comes to them."""
    for operation in program.operations:
        if isinstance(operation, Load | Call) and operation.maker is not None:
            gate = operation.leaf.gate if isinstance(operation, Load) else operation.gate
            assert gate is not None
            yield gate.block_of or gate, operation.maker
