"""How the matrices of a gate table's rotations are made from the matrices of RY and the signs of CZ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from string import ascii_letters

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds.kind import Form
from quanta_compiler.planner.plan import Plan

Legs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A factor of a block's matrix: an RY, or nothing, and the CZ that follow it."""

    turn: Gate | None
    where: tuple[tuple[int, int], ...] = ()
    """For an RY `per` a leg that the block contracts: the index of the leg at which it turns."""
    signs: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks that contract as many indices: their matrices are made together, as products of as many factors each.

    Where a block has fewer, identities follow.
    """

    blocks: tuple[Gate, ...]
    sizes: Legs
    """Of all legs, by number."""
    slots: tuple[tuple[Slot, ...], ...]
    depth: int
    """How many factors a product has: a power of two."""

    @property
    def side(self) -> int:
        """Return how many indices every block contracts."""
        return 1 << len(self.blocks[0].columns)

    @property
    def copies(self) -> tuple[int, ...]:
        """Return how many matrices each block has: one for every index of `per`."""
        return tuple(math.prod(self.sizes[leg] for leg in block.per) for block in self.blocks)


def block_groups(blocks: Sequence[Gate], sizes: Legs) -> tuple[BlockGroup, ...]:
    """Return blocks of `ry` and `cz` by the number of legs that they contract, all of which have size 2."""
    groups: list[BlockGroup] = []
    for count in sorted({len(block.columns) for block in blocks}):
        alike = tuple(block for block in blocks if len(block.columns) == count)
        slots = tuple(_slots(block, sizes) for block in alike)
        depth = 1 << (max(map(len, slots)) - 1).bit_length()
        groups.append(BlockGroup(alike, sizes, slots, depth))
    return tuple(groups)


def _slots(block: Gate, sizes: Legs) -> tuple[Slot, ...]:
    slots = [Slot(None)]
    for part in block.parts:
        if part.form is Form.ANGLE:
            inside = [leg for leg in part.per if leg not in block.per]
            indices = product(*(range(sizes[leg]) for leg in inside))
            slots += [Slot(part, tuple(zip(inside, index, strict=True))) for index in indices]
        else:
            slots[-1] = replace(slots[-1], signs=(*slots[-1].signs, part))
    return tuple(slots if slots[0].signs else slots[1:])


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


def contracted_pairs(plan: Plan) -> tuple[Pair, ...]:
    """Return the steps of a plan that only contracts; the last one makes the result, its legs in order.

    Every result has an order: that in which a batch of products comes out, and in the end the one of the output.
    """
    assert all(step.op == "contract" for step in plan.steps), "blocks have nothing to reshape"
    layouts = [leaf.legs for leaf in plan.leaves]
    pairs: list[Pair] = []
    for step in plan.steps:
        left, right = step.inputs
        first, second = layouts[left], layouts[right]
        order = [leg for leg in first if leg in second and leg in step.legs]
        order += [leg for leg in first if leg not in second]
        order += [leg for leg in second if leg not in first]
        layout = plan.output if step is plan.steps[-1] else tuple(order)
        assert frozenset(layout) == step.legs, "what stands on one side only is kept"
        pairs.append(Pair(left, right, first, second, layout))
        layouts.append(layout)
    return tuple(pairs)
