"""Plan -> Program: straight, or where a result is large, in a loop over slices of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.chains import Lowering
from quanta_compiler.lowering.functions import functions_of
from quanta_compiler.lowering.moves import COPY_OVERHEAD
from quanta_compiler.lowering.program import Access, Loop, Operation, Pick, Program, sources
from quanta_compiler.lowering.slicing import PEAK, Slicing, slicings
from quanta_compiler.planner.plan import Plan

SLICED_ELEMENTS = 1 << 18
"""An operator of fewer elements is built at once: a loop would take longer than the copies that it saves."""
LEAST_SLICES = 16
"""Fewer slices were measured to be slower: a larger one does not stay in the cache between its steps."""
SCATTERED_SHARE = 8
"""Slices that are no runs of rows cost this part of the result more: all of its pages are written again by each."""
TRIED = (1, 4)
"""Slicings lowered before the best of them is taken, at the least and at the most; as many again may fail."""
TRIED_STEPS = 60
"""Steps lowered for that, which bounds the time that a long plan takes."""


def lower(plan: Plan, circuit: Circuit, *, sliced_from: int = SLICED_ELEMENTS) -> Program:
    """Return the operations that carry out a plan of a circuit.

    An operator of at least `sliced_from` elements that would need more than 1.25 times its own memory is built slice by
    slice, if that needs less. One that needs no more is built at once, and only added to a matrix slice by slice.

    More remains where something without the legs of a slice is as large as the result (as between two dense gates with
    a `slice` gate in the middle, or if so large a stored tensor must be copied), where the axes have no divisors to
    slice by, where nothing mixes, so that the result is a diagonal, and where a `pauli` gate is applied to the whole.
    """
    straight = lower_straight(plan, circuit)
    result = circuit.out_features * circuit.in_features
    if plan.batch is not None or result < sliced_from:
        return straight
    sliced = _best_slicing(straight, circuit, result)
    excess = _excess(_peak(straight), result)
    if sliced is None or (_excess(_peak(sliced), result) >= excess > 0):
        return straight
    return sliced if excess > 0 else replace(straight, in_slices=sliced)


def lower_straight(plan: Plan, circuit: Circuit) -> Program:
    """Return a program without a loop."""
    lowering = Lowering(plan, functions_of(plan))
    value = lowering.lower(len(plan.leaves) + len(plan.steps) - 1, plan.output, plan.rows)
    assert lowering.operations[value].layout == plan.output, "the result stands in the layout that was asked for"
    return _program(plan, circuit, lowering.operations)


def _program(plan: Plan, circuit: Circuit, operations: Sequence[Operation]) -> Program:
    widths = circuit.in_features, circuit.out_features, circuit.in_size, circuit.out_size
    return Program(plan, tuple(operations), *widths)


def lower_sliced(slicing: Slicing, circuit: Circuit, straight: Program) -> tuple[Program, int]:
    """Return the program of a slicing, and what its copies cost in elements moved."""
    lowering = Lowering(slicing.plan, functions_of(slicing.plan), slicing)
    # The legs of a slice in the order of the result.
    left = slicing.plan.legs(slicing.root).difference(slicing.legs)
    target = tuple(leg for leg in slicing.plan.output if leg in left)
    value = lowering.lower(slicing.root, target, len(target) if slicing.is_cut else None)
    operations, first = _hoist(lowering.operations, value)
    loop = Loop(legs=slicing.legs, slices=slicing.slices, first=first, ties=slicing.ties)
    cost = lowering.cost + COPY_OVERHEAD * (len(operations) - first) * slicing.slices
    if slicing.legs[0] != slicing.plan.output[0]:
        cost += circuit.out_features * circuit.in_features // SCATTERED_SHARE
    program = _program(slicing.plan, circuit, operations)
    return replace(program, loop=loop, at_once=straight), cost


def _peak(program: Program) -> int:
    return program_cost(program).peak_bytes // ELEMENT_BYTES


def _best_slicing(straight: Program, circuit: Circuit, result: int) -> Program | None:
    """Return the cheapest sliced program that needs little enough; where none does, one that needs least."""
    plan = straight.plan
    limit = max(TRIED[0], min(TRIED[1], TRIED_STEPS // max(1, len(plan.steps))))
    best: Program | None = None
    least: tuple[int, int] | None = None
    tried = 0
    for slicing in _promising(slicings(plan, circuit), result)[: 4 * limit]:
        program, cost = lower_sliced(slicing, circuit, straight)
        need = _excess(_peak(program), result), cost
        if least is None or need < least:
            best, least = program, need
        tried += need[0] == 0
        if tried == limit:
            break
    return best


def _excess(peak: int, result: int) -> int:
    """Return by how many eighths of the result a peak is above what it may be."""
    return max(0, math.ceil(8 * (peak / result - PEAK)))


def _promising(found: Sequence[Slicing], result: int) -> list[Slicing]:

    def promise(slicing: Slicing) -> tuple[int, bool, int, int]:
        # More slices are more kernels, and whole axes are easier to read.
        are_few, distance = slicing.slices < LEAST_SLICES, abs(slicing.slices - LEAST_SLICES)
        return _excess(slicing.least_peak(result), result), are_few, distance, len(slicing.plan.sizes)

    return sorted(found, key=promise)


def _hoist(operations: Sequence[Operation], value: int) -> tuple[tuple[Operation, ...], int]:
    """Return operations with those that do not depend on the slice in front, and how many these are.

    `value` is the slice. Values are numbered anew, in order.
    """
    varying: set[int] = set()
    for operation in operations:
        if isinstance(operation, Pick) or any(access.value in varying for access in sources(operation)):
            varying.add(operation.result)
    assert value in varying, "a slice depends on which it is"
    fixed = [operation for operation in operations if operation.result not in varying]
    ordered = fixed + [operation for operation in operations if operation.result in varying]
    numbers = {operation.result: number for number, operation in enumerate(ordered)}
    return tuple(_renumbered(operation, numbers) for operation in ordered), len(fixed)


def _renumbered(operation: Operation, numbers: Mapping[int, int]) -> Operation:
    reads: dict[str, Any] = {
        field.name: Access(numbers[access.value], access.groups)
        for field in fields(operation)
        if isinstance(access := getattr(operation, field.name), Access)
    }
    return replace(operation, result=numbers[operation.result], **reads)
