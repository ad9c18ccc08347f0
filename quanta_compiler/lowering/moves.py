"""The ways to lower one step of a plan from one layout: what is copied, and which layout comes out."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import NamedTuple

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


class Move(NamedTuple):
    """One way to lower a step: layouts before it (None: as it is), the groups of both sides, the layout after it."""

    cost: int
    after: Layout
    copy: Layout | None
    side_copy: Layout | None
    groups: Groups
    """Of the state: batch, kept, contracted legs; of a slice or call: before, columns, after; of a tie: all others."""
    side_groups: Groups = ()
    swapped: bool = False
    """The product is computed transposed, new legs in front."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What every move of one step has to know, whatever the layout."""

    sizes: Sequence[int]
    needs: tuple[frozenset[int], ...]
    """The legs that later steps contract, next step first."""
    target: Layout | None
    """The layout in which the result is wanted at last."""

    def volume(self, legs: Iterable[int]) -> int:
        """Return the number of elements over some legs."""
        return math.prod([self.sizes[leg] for leg in legs])

    def write_cost(self, legs: Iterable[int]) -> int:
        """Return what writing a tensor in order costs."""
        return self.volume(legs) + COPY_OVERHEAD

    def copy_cost(self, old: Layout, new: Layout, write_cost: int) -> int:
        """Return what moving a tensor from one layout to another costs, written in order and read across."""
        if not old:
            return write_cost
        # Between two neighbours in memory the copy goes through all that the new layout has inside of their leg.
        last, between = old[-1], 1
        for leg in reversed(new):
            if leg == last:
                return write_cost
            between *= self.sizes[leg]
            if between > CACHED_ELEMENTS:
                return write_cost * UNCACHED_FACTOR
        return write_cost

    def orders(self, given: Layout) -> list[Layout]:
        """Return orders worth trying for legs that are written anyway: what later steps want stands at an end."""
        found = [given]
        wanted = [tuple([leg for leg in given if leg in need]) for need in self.needs]
        wanted = [need for need in wanted if need and len(need) < len(given)]
        for need in wanted[:2]:
            rest = tuple([leg for leg in given if leg not in need])
            found += [need + rest, rest + need]
        for first, second in pairwise(wanted):
            apart = tuple([leg for leg in second if leg not in first])
            rest = tuple([leg for leg in given if leg not in first and leg not in apart])
            found += [first + rest + apart, apart + rest + first]
        if self.target is not None:
            places = {leg: place for place, leg in enumerate(self.target)}
            found.append(tuple(sorted(given, key=lambda leg: places.get(leg, -1))))
        return list(dict.fromkeys(found))


def is_run(layout: Layout, legs: Layout) -> bool:
    """Return whether `legs` are neighbours in `layout`, in this order."""
    if not legs:
        return True
    if legs[0] not in layout:
        return False
    start = layout.index(legs[0])
    return layout[start : start + len(legs)] == legs


class ContractionMoves:
    """The ways to contract `side` (a small tensor, as a rule) into a state, for any layout of the state."""

    def __init__(self, state: frozenset[int], side: Layout, result: frozenset[int], situation: Situation) -> None:
        self.situation = situation
        self.side = side
        shared = state.intersection(side)
        self.shared = shared
        self.contracted = shared - result
        self.batch = shared & result
        self.side_batch = tuple(leg for leg in side if leg in self.batch)
        self.side_contracted = tuple(leg for leg in side if leg in self.contracted)
        natural = tuple(leg for leg in side if leg not in shared)
        self.new_orders = list(permutations(natural)) if len(natural) <= PERMUTED_LEGS else situation.orders(natural)
        self.write_cost = situation.write_cost(state)
        self.turned_cost = situation.volume(result) // TURNED_SHARE
        self.side_costs: dict[tuple[Layout, Layout], list[tuple[int, Layout | None, Layout]]] = {}

    def moves(self, state: Layout) -> Iterator[Move]:
        """Yield the moves from one layout of the state."""
        if not self.contracted:
            yield from self._elementwise(state)
            return
        kept = tuple([leg for leg in state if leg not in self.shared])
        batch = tuple([leg for leg in state if leg in self.batch])
        contracted = tuple([leg for leg in state if leg in self.contracted])
        # A batch in the innermost place would leave neither side of the matrix contiguous.
        if state[-1] not in self.batch and is_run(state, contracted) and is_run(state, kept) and is_run(state, batch):
            yield from self._products(0, None, (batch, kept, contracted))
        for order in self.situation.orders(kept):
            copied = self.side_batch + order + self.side_contracted
            if copied != state:
                cost = self.situation.copy_cost(state, copied, self.write_cost)
                yield from self._products(cost, copied, (self.side_batch, order, self.side_contracted))

    def _products(self, cost: int, copy: Layout | None, groups: Groups) -> Iterator[Move]:
        batch, kept, contracted = groups
        for side_cost, side_copy, new in self._sides(batch, contracted):
            side_groups = (batch, contracted, new)
            total = cost + side_cost
            yield Move(total, batch + kept + new, copy, side_copy, groups, side_groups, False)
            yield Move(total + self.turned_cost, batch + new + kept, copy, side_copy, groups, side_groups, True)

    def _sides(self, batch: Layout, contracted: Layout) -> list[tuple[int, Layout | None, Layout]]:
        """Return (cost, copy or None, order of the new legs) for the orders that the state asks of the side."""
        known = self.side_costs.get((batch, contracted))
        if known is not None:
            return known
        found: list[tuple[int, Layout | None, Layout]] = []
        for new in self.new_orders:
            viewed = all(is_run(self.side, group) for group in (batch, contracted, new))
            if viewed and self.side[-1] not in self.batch:
                found.append((0, None, new))
                continue
            copied = batch + new + contracted
            write_cost = self.situation.write_cost(copied)
            found.append((self.situation.copy_cost(self.side, copied, write_cost), copied, new))
        self.side_costs[batch, contracted] = found
        return found

    def _elementwise(self, state: Layout) -> Iterator[Move]:
        """Yield products with broadcasting: the side is read in the state's order, leg by leg.

        torch writes the result in the order of the state's memory and, among legs that the state lacks, of the side's:
        the side is copied where its own legs stand otherwise among the shared ones.
        """
        new = tuple([leg for leg in self.side if leg not in state])
        for after in dict.fromkeys((merged(state, self.side), state + new, new + state)):
            wanted = tuple([leg for leg in after if leg in self.side])
            if not new or wanted == self.side:
                yield Move(0, after, None, None, runs(after, state, self.side))
                continue
            cost = self.situation.copy_cost(self.side, wanted, self.situation.write_cost(wanted))
            yield Move(cost, after, None, wanted, runs(after, state, wanted))


def merged(layout: Layout, other: Layout) -> Layout:
    """Return `layout` with the legs that only another has, each in front of the shared leg that it is in front of."""
    after: list[int] = []
    places = {leg: place for place, leg in enumerate(other)}
    taken = 0
    for leg in layout:
        if leg in places and places[leg] >= taken:
            after += [one for one in other[taken : places[leg]] if one not in layout]
            taken = places[leg] + 1
        after.append(leg)
    return (*after, *(one for one in other[taken:] if one not in layout))


def runs(layout: Layout, *tensors: Layout) -> Groups:
    """Return `layout` cut into the longest groups that each tensor holds as a run, or not at all."""
    groups: list[Layout] = []
    for leg in layout:
        longer = (*groups[-1], leg) if groups else (leg,)
        if groups and all(is_run(tensor, longer) or not set(tensor).intersection(longer) for tensor in tensors):
            groups[-1] = longer
        else:
            groups.append((leg,))
    return tuple(groups)


def slice_moves(
    state: Layout, columns: Layout, rows: Layout, situation: Situation, *, at_end: bool = False
) -> Iterator[Move]:
    """Yield the ways to turn the legs `columns` of a state into `rows`: they must stand together, in their order.

    With `at_end` they must stand behind all others, as a function reads them.
    """
    others = tuple([leg for leg in state if leg not in columns])
    # A free reshape writes nothing.
    resized = situation.volume(columns) != situation.volume(rows)
    result_cost = situation.write_cost(others + rows) if resized else 0

    def move(cost: int, before: Layout, after: Layout, copy: Layout | None) -> Move:
        return Move(cost + result_cost, before + rows + after, copy, None, (before, columns, after))

    first = next((place for place, leg in enumerate(state) if leg in columns), len(state) if at_end else 0)
    if is_run(state, columns) and (first == len(others) or not at_end):
        yield move(0, state[:first], state[first + len(columns) :], None)
        return
    write_cost = situation.write_cost(state)
    for order in situation.orders(others):
        # In front, behind, or where the first of the columns stands.
        for place in dict.fromkeys((len(order),) if at_end else (0, len(order), first)):
            before, after = order[:place], order[place:]
            copy = before + columns + after
            yield move(situation.copy_cost(state, copy, write_cost), before, after, copy)


def tie_moves(state: Layout, old: int, new: int, situation: Situation) -> Iterator[Move]:
    """Yield the layouts that an identity on a leg may be written in: it is written once, so every order costs the same.

    The diagonal is filled from the state read in any order, leg by leg.
    """
    others = tuple(leg for leg in state if leg != old)
    for order in situation.orders((*others, new, old)):
        read = tuple((leg,) for leg in order if leg not in (old, new))
        yield Move(situation.write_cost(order), order, None, None, read)


def pick_moves(state: Layout, fixed: frozenset[int], situation: Situation) -> Iterator[Move]:
    """Yield the layouts in which a slice can be read: as it is where the fixed legs stand in front, else by a copy."""
    picked = tuple([leg for leg in state if leg in fixed])
    others = tuple([leg for leg in state if leg not in fixed])
    if state[: len(picked)] == picked:
        yield Move(0, others, None, None, ())
    write_cost = situation.write_cost(state)
    for order in situation.orders(others):
        copied = picked + order
        if copied != state:
            yield Move(situation.copy_cost(state, copied, write_cost), order, None, None, ())


def present(groups: Groups, layout: Layout) -> Groups:
    """Return groups with an empty one in the place of each that a layout lacks."""
    return tuple(group if group and group[0] in layout else () for group in groups)


def ordered(groups: Groups, layout: Layout) -> Groups:
    """Return non-empty groups in the order of a layout."""
    return tuple(
        sorted((group for group in groups if group and group[0] in layout), key=lambda group: layout.index(group[0]))
    )


def shared_runs(old: Layout, new: Layout, starts: Collection[int] = ()) -> Groups:
    """Return `new` cut into the fewest groups that are runs of `old`, and in front of some legs."""
    groups: list[Layout] = []
    for leg in new:
        if groups and leg not in starts and old.index(leg) == old.index(groups[-1][-1]) + 1:
            groups[-1] = (*groups[-1], leg)
        else:
            groups.append((leg,))
    return tuple(groups)
