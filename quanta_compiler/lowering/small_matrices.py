"""How the matrices of a gate table's blocks are made: small tensors contracted pair by pair, in an order found once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.planner.assembly import searched
from quanta_compiler.planner.cost import contraction_flops, results
from quanta_compiler.planner.leaves import gate_leaves
from quanta_compiler.planner.plan import Leaf, Plan

Legs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors that become one; leaves come before what pairs make, in the order in which they make it."""

    left: int
    right: int
    left_legs: Legs
    right_legs: Legs
    legs: Legs

    @property
    def equation(self) -> str:
        """Return the einsum of two tensors that may have the same dimensions in front."""
        letters: dict[int, str] = {}
        terms = [
            "..." + "".join(letters.setdefault(leg, ascii_letters[len(letters)]) for leg in legs)
            for legs in (self.left_legs, self.right_legs, self.legs)
        ]
        return f"{terms[0]},{terms[1]}->{terms[2]}"


@dataclass(frozen=True, slots=True)
class Contraction:
    """Leaves and pairs of them; the last pair makes the result, with its legs in the order that was asked for."""

    leaves: tuple[Leaf, ...]
    pairs: tuple[Pair, ...]
    sizes: tuple[int, ...]

    @property
    def flops(self) -> int:
        """Return the FLOPs of all pairs, a multiply-add being two."""
        return sum(self.pair_flops(pair) for pair in self.pairs)

    def pair_flops(self, pair: Pair) -> int:
        """Return the FLOPs of one pair."""
        return contraction_flops(
            frozenset(pair.left_legs), frozenset(pair.right_legs), frozenset(pair.legs), self.sizes
        )

    def volume(self, legs: Sequence[int]) -> int:
        """Return the number of elements over some legs."""
        return math.prod(self.sizes[leg] for leg in legs)


def contracted_block(block: Gate, sizes: tuple[int, ...]) -> Contraction:
    """Return how the matrix `[*per, *rows, *columns]` of a block of `ry` and `cz` is made."""
    leaves = [leaf for part in block.parts for leaf in gate_leaves(part, (), True, None)]
    tensors = [frozenset(leaf.legs) for leaf in leaves]
    output = block.per + block.rows + block.columns
    # Many small gates: a better order saves nothing.
    _, pairs = searched("greedy")(tensors, frozenset(output), sizes)
    made = [(pair, legs) for pair, legs in zip(pairs, results(tensors, frozenset(output), pairs)[len(leaves) :])]
    return _in_layouts(leaves, made, output, sizes)


def contracted_plan(plan: Plan) -> Contraction:
    """Return the steps of a plan that only contracts."""
    assert all(step.kind == "contract" for step in plan.steps), "a circuit of RY and CZ has nothing to reshape"
    made = [((step.inputs[0], step.inputs[1]), step.legs) for step in plan.steps]
    return _in_layouts(plan.leaves, made, plan.output, plan.sizes)


def _in_layouts(
    leaves: Sequence[Leaf],
    made: Sequence[tuple[tuple[int, int], frozenset[int]]],
    output: Legs,
    sizes: tuple[int, ...],
) -> Contraction:
    """Give every result an order: that in which a batch of products comes out, and in the end the one asked for."""
    layouts = [leaf.legs for leaf in leaves]
    pairs: list[Pair] = []
    for (left, right), legs in made:
        first, second = layouts[left], layouts[right]
        order = [leg for leg in first if leg in second and leg in legs]
        order += [leg for leg in first if leg not in second]
        order += [leg for leg in second if leg not in first]
        layout = output if len(pairs) == len(made) - 1 else tuple(order)
        assert frozenset(layout) == legs, "what stands on one side only is kept"
        pairs.append(Pair(left, right, first, second, layout))
        layouts.append(layout)
    return Contraction(tuple(leaves), tuple(pairs), sizes)
