"""The ways to lower one step of a plan from one layout: what is copied, and which layout comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from quanta_compiler.lowering.program import Groups, Layout

COPY_OVERHEAD = 4096
"""A copy's fixed cost in elements, so that of two equal sums of data the one with fewer kernels is taken."""
CACHED_ELEMENTS = 8192
"""A copy that comes back to a cache line after more elements than this reads it from memory again."""
UNCACHED_FACTOR = 6
"""How much slower such a copy was measured to be (30 against 5 ns an element)."""
TURNED_SHARE = 4
"""A product of many short rows is slower computed transposed, by this part of a copy of its result."""
PERMUTED_LEGS = 3
"""Up to this many new legs are tried in every order."""


@dataclass(frozen=True, slots=True)
class Move:
    """One way to lower a step: layouts before it (None: as it is), the groups of both sides, the layout after it."""

    cost: int
    after: Layout
    copy: Layout | None
    side_copy: Layout | None
    groups: Groups
    """Of the state: batch, kept, contracted legs; for a slice: before, columns, after; for a tie: all others."""
    side_groups: Groups = ()
    swapped: bool = False
    """The product is computed transposed, new legs in front."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What every move of one step has to know."""

    sizes: Sequence[int]
    needs: tuple[frozenset[int], ...]
    """The legs that later steps contract, next step first."""
    target: Layout | None
    """The layout in which the result is wanted at last."""

    def volume(self, legs: Iterable[int]) -> int:
        """Return the number of elements over some legs."""
        return math.prod(self.sizes[leg] for leg in legs)

    def write_cost(self, legs: Iterable[int]) -> int:
        """Return what writing a tensor in order costs."""
        return self.volume(legs) + COPY_OVERHEAD

    def copy_cost(self, old: Layout, new: Layout) -> int:
        """Return what moving a tensor from one layout to another costs, written in order and read across."""
        cost = self.write_cost(new)
        if not old:
            return cost
        # Between two neighbours in memory the copy goes through all that the new layout has inside of their leg.
        between = self.volume(new[new.index(old[-1]) + 1 :])
        return cost * UNCACHED_FACTOR if between > CACHED_ELEMENTS else cost

    def orders(self, legs: Sequence[int]) -> list[Layout]:
        """Return orders worth trying for legs that are written anyway: what later steps want stands at an end."""
        given = tuple(legs)
        found = [given]
        wanted = [tuple(leg for leg in given if leg in need) for need in self.needs]
        wanted = [need for need in wanted if need and len(need) < len(given)]
        for need in wanted[:2]:
            rest = tuple(leg for leg in given if leg not in need)
            found += [need + rest, rest + need]
        for first, second in pairwise(wanted):
            apart = tuple(leg for leg in second if leg not in first)
            rest = tuple(leg for leg in given if leg not in first and leg not in apart)
            found += [first + rest + apart, apart + rest + first]
        if self.target is not None:
            places = {leg: place for place, leg in enumerate(self.target)}
            found.append(tuple(sorted(given, key=lambda leg: places.get(leg, -1))))
        return list(dict.fromkeys(found))

    def new_orders(self, natural: Sequence[int]) -> list[Layout]:
        """Return orders for the legs that a gate creates: permuting its rows costs only the gate."""
        if len(natural) <= PERMUTED_LEGS:
            return list(permutations(natural))
        return self.orders(natural)


def is_run(layout: Layout, legs: Layout) -> bool:
    """Return whether `legs` are neighbours in `layout`, in this order."""
    if not legs:
        return True
    if legs[0] not in layout:
        return False
    start = layout.index(legs[0])
    return layout[start : start + len(legs)] == legs


def contract_moves(state: Layout, side: Layout, result: frozenset[int], situation: Situation) -> Iterator[Move]:
    """Yield the ways to contract `side` (a small tensor, as a rule) into `state`."""
    shared = set(state) & set(side)
    contracted = shared - result
    if not contracted:
        yield from _elementwise_moves(state, side, situation)
        return
    batch = shared & result
    side_batch = tuple(leg for leg in side if leg in batch)
    side_contracted = tuple(leg for leg in side if leg in contracted)
    new = tuple(leg for leg in side if leg not in shared)
    kept = tuple(leg for leg in state if leg not in shared)
    yield from _products(
        state,
        None,
        (tuple(leg for leg in state if leg in batch), kept, tuple(leg for leg in state if leg in contracted)),
        (side, new),
        situation,
    )
    for order in situation.orders(kept):
        copied = side_batch + order + side_contracted
        if copied != state:
            yield from _products(state, copied, (side_batch, order, side_contracted), (side, new), situation)


def _products(
    state: Layout, copy: Layout | None, groups: Groups, side_and_new: tuple[Layout, Layout], situation: Situation
) -> Iterator[Move]:
    batch, kept, contracted = groups
    layout = copy or state
    if not all(is_run(layout, group) for group in groups) or (batch and layout[-1] == batch[-1]):
        # A batch in the innermost place would leave neither side of the matrix contiguous.
        return
    side, natural = side_and_new
    cost = situation.copy_cost(state, copy) if copy is not None else 0
    for new in situation.new_orders(natural):
        side_groups = (batch, contracted, new)
        side_copy = None
        if not all(is_run(side, group) for group in side_groups) or (batch and side[-1] == batch[-1]):
            side_copy = batch + new + contracted
        move_cost = cost + (situation.copy_cost(side, side_copy) if side_copy is not None else 0)
        for swapped in (False, True):
            after = batch + (new + kept if swapped else kept + new)
            turned = situation.volume(after) // TURNED_SHARE if swapped else 0
            yield Move(move_cost + turned, after, copy, side_copy, groups, side_groups, swapped)


def _elementwise_moves(state: Layout, side: Layout, situation: Situation) -> Iterator[Move]:
    """Yield products with broadcasting: the side is read in the state's order, leg by leg.

    torch writes the result in the order of the state's memory and, where a leg is the side's alone, of the side's: the
    side is copied where its own legs stand otherwise among the shared ones.
    """
    new = tuple(leg for leg in side if leg not in state)
    for after in dict.fromkeys((state + new, new + state)):
        wanted = tuple(leg for leg in after if leg in side)
        side_copy = wanted if new and wanted != side else None
        cost = situation.copy_cost(side, side_copy) if side_copy is not None else 0
        yield Move(cost, after, None, side_copy, runs(after, state, side_copy or side))


def runs(layout: Layout, *tensors: Layout) -> Groups:
    """Return `layout` cut into the longest groups that each tensor holds as a run, or not at all."""
    groups: list[Layout] = []
    for leg in layout:
        if groups and all(
            is_run(tensor, (*groups[-1], leg)) or not set(tensor).intersection((*groups[-1], leg)) for tensor in tensors
        ):
            groups[-1] = (*groups[-1], leg)
        else:
            groups.append((leg,))
    return tuple(groups)


def slice_moves(state: Layout, columns: Layout, rows: Layout, situation: Situation) -> Iterator[Move]:
    """Yield the ways to turn the legs `columns` into `rows`: they must stand together, in their order."""
    if is_run(state, columns):
        yield _slice_move(state, None, columns, rows, situation)
        return
    others = tuple(leg for leg in state if leg not in columns)
    for order in situation.orders(others):
        for place in range(len(order) + 1):
            if place not in (0, len(order)) and order[:place] != state[:place]:
                continue
            yield _slice_move(state, order[:place] + columns + order[place:], columns, rows, situation)


def _slice_move(state: Layout, copy: Layout | None, columns: Layout, rows: Layout, situation: Situation) -> Move:
    layout = copy or state
    start = layout.index(columns[0]) if columns else 0
    groups = (layout[:start], columns, layout[start + len(columns) :])
    cost = situation.copy_cost(state, copy) if copy is not None else 0
    if situation.volume(columns) != situation.volume(rows):
        cost += situation.write_cost(groups[0] + rows + groups[2])
    return Move(cost, groups[0] + rows + groups[2], copy, None, groups)


def tie_moves(state: Layout, old: int, new: int, situation: Situation) -> Iterator[Move]:
    """Yield the layouts that an identity on a leg may be written in: it is written once, so every order costs the same.

    The diagonal is filled from the state read in any order, leg by leg.
    """
    others = tuple(leg for leg in state if leg != old)
    for order in situation.orders((*others, new, old)):
        read = tuple((leg,) for leg in order if leg not in (old, new))
        yield Move(situation.write_cost(order), order, None, None, read)
