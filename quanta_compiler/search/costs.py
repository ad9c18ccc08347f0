"""What a layout costs by closed formulas, gate by gate: nothing is planned, so that thousands a second can be costed.

The figures are those of a report (report/figures.py) before the planner has found anything cheaper: an upper bound of
the FLOPs and of what is kept for backward, and the very numbers for parameters and rank bounds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.search.space import Layout
from quanta_compiler.search.words import Letter

_MIXING_DIGITS = 6
"""Logarithms are summed in the order of the gates, which must not decide between layouts."""


# A tuple, since it is made for every layout of the space: a frozen dataclass takes four times as long.
class Figures(NamedTuple):
    """The figures of one circuit; FLOPs count a multiply-add as 2, bytes are of 4-byte numbers."""

    parameters: int
    flops_per_token: int
    saved_bytes_per_token: int
    """What gate by gate keeps for backward; the fused kernel keeps the input alone."""
    rank_lower: int
    rank_upper: int
    mixing: float
    """From 0 (two groups of axes never meet) to 1 (no split of the axes restricts the operator); see `_split_sizes`."""
    freedom: int
    """How many numbers of the operator the gates can set independently, at most; see `_freedom`."""


class OrderFigures(NamedTuple):
    """The figures that depend on the order of the gates."""

    operator_flops: int
    """Building the matrix by contracting gate by gate."""
    gates_to_full: int | None
    """After how many gates every output can depend on every input: nothing is tied by a bare wire any more."""
    gates_to_mix: int | None
    """After how many gates every output axis depends on every input axis."""


class GateCost(NamedTuple):
    """One gate on one layout, by what the changed axis has become when it acts."""

    parameters: int
    flops: int
    saved: int
    """Numbers kept for backward: its input, and what stands between the factors of a low-rank gate."""
    rank: int
    """Its own, times all other axes."""
    width: int
    """Numbers in the state after it."""
    splits: tuple[float, ...]
    """For every split of the axes the logarithm of the most Kronecker products that its matrix can need."""


@dataclass(frozen=True)
class LayoutCosts:
    """The closed formulas for the circuits of one layout; gates are positions in `letters`."""

    layout: Layout
    letters: tuple[Letter, ...]
    in_features: int
    out_features: int

    @property
    def in_size(self) -> int:
        """Return the size of the state before the first gate."""
        return math.prod(self.layout.before)

    @property
    def width_key(self) -> tuple[bool, int]:
        """Return what layouts share that differ in how the width is split: whether an axis changes, and the width."""
        return self.changed is None, self.in_size

    @cached_property
    def changed(self) -> int | None:
        """Return the axis that has another size in the end."""
        return self.layout.changed_axis

    @cached_property
    def tables(self) -> tuple[tuple[GateCost, ...], ...]:
        """What every gate costs before the changed axis changes, as it does, and after; one table if none changes."""
        old, new = self.layout.before, self.layout.after
        stages = ((old, old),) if old == new else ((old, old), (old, new), (new, new))
        return tuple(tuple(self._gate_cost(letter, *stage) for letter in self.letters) for stage in stages)

    @cached_property
    def floors(self) -> tuple[tuple[int, int, int] | None, ...]:
        """The least that every gate adds to parameters, FLOPs and saved numbers; None where a dense one is smaller.

        Whatever gates follow, a circuit costs at least the sum over those that it has.
        """
        return tuple(
            None
            if self._is_larger_than_dense(letter)
            else (
                min(cost.parameters for cost in costs),
                min(cost.flops for cost in costs),
                min(cost.saved for cost in costs),
            )
            for letter, costs in zip(self.letters, zip(*self.tables, strict=True), strict=True)
        )

    def figures(self, word: Sequence[int]) -> Figures:
        """Return the figures that do not depend on the order, `word` being the gates in theirs."""
        parameters, flops, saved, ranks, widths, splits = zip(*self._costs(word), strict=True)
        bounds, inner = list(ranks), list(widths)
        if self.in_features != self.in_size:
            bounds.append(min(self.in_features, self.in_size))
            inner.append(self.in_size)
        if self.out_features != widths[-1]:
            bounds.append(min(self.out_features, widths[-1]))
        else:
            del inner[len(widths) - 1]
        shares = [sum(logs) / cap for logs, cap in zip(zip(*splits, strict=True), self.caps, strict=True)]
        return Figures(
            sum(parameters),
            sum(flops),
            ELEMENT_BYTES * sum(saved),
            max(0, sum(bounds) - sum(inner)),
            min(bounds),
            round(min(1.0, *shares), _MIXING_DIGITS) if shares else 1.0,
            self._freedom(word, sum(parameters)),
        )

    def order_figures(self, word: Sequence[int]) -> OrderFigures:
        """Return the figures that depend on the order of the gates."""
        axes = len(self.layout.before)
        everything = (1 << axes) - 1
        touched, depends = 0, [1 << axis for axis in range(axes)]
        full = mix = None
        for count, letter in enumerate(word, start=1):
            chosen = self.letters[letter].axes
            reached = 0
            for axis in chosen:
                touched |= 1 << axis
                reached |= depends[axis]
            for axis in chosen:
                depends[axis] = reached
            if full is None and touched == everything:
                full = count
            if mix is None and all(one == everything for one in depends):
                mix = count
        return OrderFigures(self._operator_flops(word), full, mix)

    @cached_property
    def caps(self) -> tuple[float, ...]:
        """For every split of the axes the logarithm of the most Kronecker products that any operator needs."""
        return _split_sizes(tuple(range(len(self.layout.before))), self.layout.before, self.layout.after)

    def _gate_cost(self, letter: Letter, now: Sequence[int], then: Sequence[int]) -> GateCost:
        """Return what a gate costs that finds the sizes `now` and leaves `then`, on its own axes."""
        columns, rows = (math.prod(sizes[axis] for axis in letter.axes) for sizes in (now, then))
        width = math.prod(now)
        rest = width // columns
        splits = _split_sizes(letter.axes, now, then)
        after = rest * rows
        if letter.rank:
            ends = letter.rank * (rows + columns)
            own = min(rows, columns, letter.rank)
            return GateCost(ends, 2 * rest * ends, width + rest * letter.rank, own * rest, after, splits)
        return GateCost(rows * columns, 2 * rest * rows * columns, width, min(rows, columns) * rest, after, splits)

    def _is_larger_than_dense(self, letter: Letter) -> bool:
        """Say whether a low-rank gate has no fewer numbers than its matrix, wherever it stands."""
        old, new = (math.prod(sizes[axis] for axis in letter.axes) for sizes in (self.layout.before, self.layout.after))
        return any(
            letter.rank * (rows + columns) >= rows * columns for columns, rows in ((old, old), (old, new), (new, new))
        )

    def _costs(self, word: Sequence[int]) -> list[GateCost]:
        """Return the cost of each gate: the first on the changed axis shrinks it, or the last grows it."""
        if self.changed is None:
            table = self.tables[0]
            return [table[letter] for letter in word]
        before, at, after = self.tables
        place = self.changing_gate(word)
        return [(before if step < place else after if step > place else at)[letter] for step, letter in enumerate(word)]

    def changing_gate(self, word: Sequence[int]) -> int:
        """Return the place of the gate that changes the changed axis; past the end where no gate acts on it."""
        changed = self.changed
        if changed is None:
            return len(word)
        places = [place for place, letter in enumerate(word) if changed in self.letters[letter].axes]
        if not places:
            return len(word)
        return places[0] if self.layout.after[changed] < self.layout.before[changed] else places[-1]

    def _freedom(self, word: Sequence[int], parameters: int) -> int:
        """Return the parameters less those that change nothing.

        Where axes lead from one gate straight to another, any invertible matrix on them may be multiplied onto the one
        and its inverse onto the other, and so between the factors of a low-rank gate. The multiples of the identity
        among those matrices are counted once for all: the circuit has one scale, every matrix in it has its own.
        """
        now, change = self.layout.before, self.changing_gate(word)
        last: dict[int, int] = {}
        """The gate that was the last to act on an axis."""
        idle = len(word) - 1
        for step, letter in enumerate(word):
            axes, rank = self.letters[letter]
            bonds: dict[int, int] = {}
            for axis in axes:
                earlier = last.get(axis)
                if earlier is not None:
                    bonds[earlier] = bonds.get(earlier, 1) * now[axis]
                last[axis] = step
            for earlier, size in bonds.items():
                idle += size * size - 1
                idle -= self._short(word[earlier], size) * self._short(letter, size)
            idle += rank * rank
            if step == change:
                now = self.layout.after
        return min(parameters - idle, self.in_features * self.out_features)

    def _short(self, letter: int, size: int) -> int:
        """Return by how much a low-rank gate falls short of all directions of axes that have `size` indices.

        A matrix between two gates that both fall short may change nothing on either side, and is then not idle but
        nothing at all.
        """
        axes, rank = self.letters[letter]
        if not rank:
            return 0
        others = math.prod(self.layout.before[axis] for axis in axes) // size
        return max(0, size - rank * others)

    def _operator_flops(self, word: Sequence[int]) -> int:
        """Return the FLOPs of the operator gate by gate: each is contracted into the product of those before it."""
        old, new = self.layout.before, self.layout.after
        change = self.changing_gate(word)
        total, volume, touched = 0, 1, 0
        for step, letter in enumerate(word):
            axes, rank = self.letters[letter]
            now, then = (old if step <= change else new), (old if step < change else new)
            met = math.prod(now[axis] for axis in axes if touched >> axis & 1)
            opened = math.prod(now[axis] for axis in axes if not touched >> axis & 1)
            rows = math.prod(then[axis] for axis in axes)
            ends = (rank, rows) if rank else (rows,)
            for factor, made in enumerate(ends):
                joined = volume * (1 if factor else opened) * made
                contracted = rank if factor else met
                if step or factor:
                    is_summed = rank > 1 if factor else touched & sum(1 << axis for axis in axes) != 0
                    total += joined * (2 if is_summed else 1)
                volume = joined // contracted
            touched |= sum(1 << axis for axis in axes)
        return total


def _split_sizes(axes: Sequence[int], before: Sequence[int], after: Sequence[int]) -> tuple[float, ...]:
    """Return for every split of all axes in two the logarithm of the most Kronecker products that a matrix needs.

    The matrix acts on some axes. For a split in A and B it is a sum of products `a (x) b`; at most as many are needed
    as there are numbers in `a` or in `b`, and one where the matrix has no axis on one side. A product of matrices needs
    at most the product of their numbers, which is how the gates of a circuit bound that of its operator.
    """
    last = len(before) - 1
    found = []
    # The last axis is always in B: exchanging A and B is the same split.
    for split in range(1, 1 << last):
        a = math.prod(before[axis] * after[axis] for axis in axes if split >> axis & 1)
        b = math.prod(before[axis] * after[axis] for axis in axes if not split >> axis & 1)
        found.append(math.log2(min(a, b)))
    return tuple(found)
