"""Slicings of an operator's plan: which legs of the result a loop may fix, so that it is built slice by slice in place.

Only legs of the result are fixed, and a step is in the loop only if its tensor has all of them: what lacks one is made
once, in front. So every step is computed once for every index, as it is without a loop, and no FLOP is added.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.lowering.program import Layout
from quanta_compiler.planner.plan import Plan

PEAK = 1.25
"""How many times the result an operator may need at once, the result included."""
SLICES = 1024
"""More slices than this are not tried: what each would take to start outweighs what it computes."""


@dataclass(frozen=True, slots=True)
class Slicing:
    """Legs of the result to fix, and what that means for the steps of the plan."""

    plan: Plan
    """The plan, one of its legs split in two where a loop goes over chunks of an axis."""
    legs: Layout
    """The legs that the loop fixes: neighbours in the result."""
    slices: int
    """How many slices are made: fewer than there are indices where the others would be cut off."""
    is_cut: bool
    """Whether slices are truncated as they are written, so that they must stand in the order of the result."""
    root: int
    """The tensor that is written: the last one, or the last one before identities are written out."""
    ties: tuple[tuple[int, int], ...]
    """The legs of the identities that are left to the writing: output side, input side."""
    inside: frozenset[int]
    """The tensors that are made in the loop."""

    def consumes_in_loop(self, tensor: int) -> bool:
        """Return whether what uses a tensor, a step or the result, is in the loop."""
        user = next((i for i, step in enumerate(self.plan.steps) if tensor in step.inputs), None)
        return tensor == self.root or (user is not None and len(self.plan.leaves) + user in self.inside)

    def least_peak(self, result: int) -> int:
        """Return a lower bound of the elements that the program of a `result` of this size needs."""
        plan, first = self.plan, len(self.plan.leaves)

        def made(tensor: int) -> int:
            return plan.size(plan.legs(tensor)) if tensor >= first else 0

        held = before = inside = 0
        for tensor, step in enumerate(plan.steps[: self.root + 1 - first], start=first):
            entering = [made(other) for other in step.inputs if other not in self.inside]
            if tensor not in self.inside:
                before = max(before, made(tensor) + sum(entering))
                continue
            held += sum(entering)
            inputs = sum(made(other) for other in step.inputs if other in self.inside)
            inside = max(inside, (inputs + made(tensor)) // plan.size(self.legs))
        held += made(self.root) if self.root not in self.inside else 0
        return max(before, result + held + inside)


def slicings(plan: Plan, circuit: Circuit) -> list[Slicing]:
    """Return the slicings of an operator's plan: of runs of the result's legs, the last of them whole or in part."""
    last = len(plan.leaves) + len(plan.steps) - 1
    root = last - len(plan.closing_ties)
    ties = tuple((step.axes[1], step.axes[0]) for step in plan.closing_ties)
    tied = {leg for tie in ties for leg in tie}
    found: list[Slicing] = []
    for side in (plan.output[: plan.rows], plan.output[plan.rows :]):
        for run in _runs(side, tied):
            for parted, legs in _in_parts(plan, run):
                if not 1 < parted.size(legs) <= SLICES:
                    continue
                fitted = _fit(circuit, parted, legs)
                if fitted is None:
                    continue
                # A diagonal of a flattened side that is cut short is no view: there identities are written out.
                slices, is_cut = fitted
                written = (last, ()) if is_cut else (root, ties)
                inside = made_in_loop(parted, legs, written[0])
                found.append(Slicing(parted, legs, slices, is_cut, *written, inside))
    return found


def _runs(side: Layout, tied: set[int]) -> Iterator[Layout]:
    for start in range(len(side)):
        for stop in range(start + 1, len(side) + 1):
            if side[stop - 1] in tied:
                break
            yield side[start:stop]


def _in_parts(plan: Plan, run: Layout) -> Iterator[tuple[Plan, Layout]]:
    """Yield the run itself, and the run with only the outer part of its last leg."""
    yield plan, run
    last = run[-1]
    reshaped = {leg for step in plan.steps if step.gate is not None for leg in step.gate.rows}
    if last in reshaped or any(last in step.axes for step in plan.steps):
        return  # what a `slice` or an identity reads by its number stays one leg
    for parts in range(2, plan.sizes[last]):
        if plan.sizes[last] % parts == 0:
            outer = len(plan.sizes)
            yield _split(plan, last, parts), (*run[:-1], outer)


def _split(plan: Plan, leg: int, parts: int) -> Plan:
    """Return the plan with a leg replaced by two: a new one over `parts` chunks, and itself over those of a chunk."""
    outer = len(plan.sizes)

    def parted(legs: Layout) -> Layout:
        return tuple(part for one in legs for part in ((outer, leg) if one == leg else (one,)))

    sizes = [*plan.sizes, parts]
    sizes[leg] //= parts
    return replace(
        plan,
        leaves=tuple(replace(leaf, legs=parted(leaf.legs)) for leaf in plan.leaves),
        steps=tuple(replace(step, legs=step.legs | {outer}) if leg in step.legs else step for step in plan.steps),
        output=parted(plan.output),
        rows=len(parted(plan.output[: plan.rows])),
        sizes=tuple(sizes),
        whole_sizes=plan.whole_sizes or plan.sizes,
        labels=(*plan.labels, plan.labels[leg]),
    )


def _fit(circuit: Circuit, plan: Plan, legs: Layout) -> tuple[int, bool] | None:
    """Return how many slices reach into the result, and whether any is truncated; None where that is no whole slice.

    Slices of a truncated side must be runs of its rows or columns: then those past the end are left out.
    """
    slices, is_cut = plan.size(legs), False
    sides = (
        (circuit.out_features, circuit.out_size, plan.output[: plan.rows]),
        (circuit.in_features, circuit.in_size, plan.output[plan.rows :]),
    )
    for features, size, side in sides:
        if features >= size:
            continue
        if legs[0] not in side:
            is_cut = True
            continue
        if side[: len(legs)] != legs:
            return None
        width = size // slices
        slices = math.ceil(features / width)
        is_cut = is_cut or features % width != 0
    return slices, is_cut


def made_in_loop(plan: Plan, legs: Layout, root: int) -> frozenset[int]:
    """Return the tensors whose steps can run on one index of the legs that a loop fixes, up from what is written."""
    found: set[int] = set()
    fixed = frozenset(legs)
    waiting = [root]
    while waiting:
        tensor = waiting.pop()
        if tensor < len(plan.leaves):
            continue
        step = plan.steps[tensor - len(plan.leaves)]
        made = step.gate.rows if step.gate is not None else ()
        # A rotation is planned for all of its vectors at once.
        if step.op != "call" and fixed <= step.legs and fixed.isdisjoint((*step.axes, *made)):
            found.add(tensor)
            waiting += step.inputs
    return frozenset(found)
