"""Register tiles: the state of `T` tokens as a kernel holds it, and the lines that load, store and rearrange one.

Every leg is padded to a power of two, and what stands in the padding is zero. So a tile has an axis of two places for
every bit of every leg, in any order, and one of `T` places for the tokens; neighbours are written as one dimension.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TOKENS = -1
"""The place of the tokens in the order of a tensor in memory."""
Order = tuple[int, ...]
"""Legs, the outermost first."""
Bit = tuple[int, int]
"""A leg and the number of one of its bits."""
Bits = tuple[Bit, ...]
T: Bit = (TOKENS, 0)
"""The axis of the tokens in a tile."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A value of a kernel: its name, and the axes that its dimensions run over, the outermost first."""

    name: str
    groups: tuple[Bits, ...]

    @property
    def order(self) -> Bits:
        """Return the axes, whatever dimensions they stand in."""
        return tuple(axis for group in self.groups for axis in group)


@dataclass(frozen=True, slots=True)
class Memory:
    """A tensor in memory: the pointer's name, the legs in order, and how many of its numbers a token has.

    A vector of the circuit may be shorter than its legs: what lies behind `numbers` is zero.
    """

    pointer: str
    order: Order
    numbers: int


def padded(size: int) -> int:
    """Return the power of two that holds `size`."""
    return 1 << (size - 1).bit_length()


def dims_text(dims: Sequence[int | str]) -> str:
    """Return a shape as Triton wants it, with its comma where it has one dimension."""
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(map(str, dims))})"


def dim(axes: Bits) -> int | str:
    """Return one dimension of a tile over axes, as text with `T` where it holds the tokens."""
    if T not in axes:
        return 1 << len(axes)
    return "T" if len(axes) == 1 else f"T * {1 << (len(axes) - 1)}"


def rearranged(tile: Tile, groups: Sequence[Bits]) -> str:
    """Return the expression that gives a tile the order of `groups`, one dimension for each group."""
    if tile.groups == tuple(groups):
        return tile.name
    after = tuple(axis for group in groups for axis in group)
    shape = dims_text([dim(group) for group in groups])
    if after == tile.order:
        return f"tl.reshape({tile.name}, {shape})"
    runs = _runs(tile.order, after)
    given = dims_text([dim(run) for run in runs])
    places = dims_text([runs.index(run) for run in sorted(runs, key=lambda run: after.index(run[0]))])
    return f"tl.reshape(tl.permute(tl.reshape({tile.name}, {given}), {places}), {shape})"


def enclosed(expression: str) -> str:
    """Return an expression that an index or a method can follow."""
    return f"({expression})" if " " in expression else expression


class Sizes:
    """The sizes of a circuit's legs, and of their padding."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes

    def volume(self, legs: Sequence[int]) -> int:
        """Return the numbers over `legs`, without the tokens."""
        return math.prod(self.sizes[leg] for leg in legs if leg != TOKENS)

    def padded(self, legs: Sequence[int]) -> int:
        """Return the same with the padding."""
        return math.prod(padded(self.sizes[leg]) for leg in legs if leg != TOKENS)

    def bits(self, legs: Sequence[int]) -> Bits:
        """Return the axes of a tile over legs in order."""
        counts = ((leg, padded(self.sizes[leg]).bit_length() - 1) for leg in legs)
        return tuple((leg, bit) for leg, count in counts for bit in reversed(range(count)))

    def places(self, index: str, legs: Order, strides: dict[int, int]) -> tuple[str, list[str]]:
        """Return offsets, in numbers, of a flat padded index over `legs`, and the conditions under which it is real.

        The offsets are empty where the index has one place only. An index with a sum in it stands in brackets: all that
        is done to it binds alike, from left to right.
        """
        terms: list[str] = []
        masks: list[str] = []
        inner = 1
        for run in reversed(self._whole_runs(legs, strides)):
            extent, stride = self.padded(run), strides[run[-1]]
            place = index if inner == 1 else f"{index} // {inner}"
            if inner * extent < self.padded(legs):
                place = f"{place} % {extent}"
            if extent > 1:
                terms.append(place if stride == 1 else f"{place} * {stride}")
            if extent != self.volume(run):
                masks.append(f"({place} < {self.volume(run)})")
            inner *= extent
        return " + ".join(reversed(terms)), masks[::-1]

    def _whole_runs(self, legs: Order, strides: dict[int, int]) -> list[Order]:
        """Return neighbours together that are one stretch of memory and have no padding between them."""
        runs: list[Order] = []
        for leg in legs:
            joined = runs and strides[runs[-1][-1]] == strides[leg] * self.sizes[leg]
            if joined and self.padded((leg,)) == self.sizes[leg]:
                runs[-1] = (*runs[-1], leg)
            else:
                runs.append((leg,))
        return runs

    def strides(self, order: Order) -> dict[int, int]:
        """Return the stride of every leg of a tensor in memory, in numbers of one token."""
        found, stride = {}, 1
        for leg in reversed(order):
            if leg != TOKENS:
                found[leg] = stride
                stride *= self.sizes[leg]
        return found


def _runs(before: Bits, after: Bits) -> list[Bits]:
    """Return `before` cut where `after` goes on in another way, so that as few dimensions as possible are permuted."""
    runs: list[Bits] = []
    for axis in before:
        previous = runs[-1][-1] if runs else None
        if previous is not None and after.index(previous) + 1 == after.index(axis):
            runs[-1] = (*runs[-1], axis)
        else:
            runs.append((axis,))
    return runs
