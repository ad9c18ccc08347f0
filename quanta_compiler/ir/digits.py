"""The digits in which the index of a leg is written, and sets of joint indices of several of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Codes = frozenset[int]
"""Joint indices of some digits, the fastest being the last."""


@dataclass(eq=False, slots=True)
class Digit:
    """A digit of a leg's index: anything, unless it has a stride or a cluster."""

    size: int
    stride: int | None = None
    """It is the digit of the input's index that has this stride there."""
    cluster: Cluster | None = None

    @property
    def is_free(self) -> bool:
        """Return whether the digit can be anything, whatever the others are."""
        return self.stride is None and self.cluster is None


@dataclass(eq=False, slots=True)
class Cluster:
    """Digits of which not every combination can be reached from every input."""

    digits: list[Digit]
    """Slowest first: they make up a joint index."""
    reached: dict[Codes, int]
    """Sets of joint indices, each being all that can be reached from some inputs.

    With each, the least index of such an input, the digits that do not matter here being 0.
    """

    @property
    def size(self) -> int:
        """Return how many joint indices there could be."""
        return math.prod(digit.size for digit in self.digits)


def split(digit: Digit, size: int) -> tuple[Digit, Digit]:
    """Return a digit as two, the second of this size."""
    high = Digit(digit.size // size, None if digit.stride is None else digit.stride * size, digit.cluster)
    low = Digit(size, digit.stride, digit.cluster)
    if digit.cluster is not None:
        place = digit.cluster.digits.index(digit)
        digit.cluster.digits[place : place + 1] = [high, low]
    return high, low


def kept_below(bound: int, columns: int, rows: int) -> Callable[[Codes], Codes]:
    """Return a `slice` of joint indices: the fastest `columns` of them, if below a bound, are read as `rows`."""
    return lambda codes: frozenset(code // columns * rows + code % columns for code in codes if code % columns < bound)


def strides_of(digits: Sequence[Digit]) -> dict[Digit, int]:
    """Return the stride of each digit in the joint index of all, which are slowest first."""
    strides: dict[Digit, int] = {}
    stride = math.prod(digit.size for digit in digits)
    for digit in digits:
        stride //= digit.size
        strides[digit] = stride
    return strides


def count_below(bound: int, places: Iterable[tuple[int, int]]) -> int:
    """Return how many indices lie below a bound, their digits having these strides and sizes and all others being 0."""
    descending = sorted(places, reverse=True)
    faster, total = math.prod(size for _, size in descending), 0
    for stride, size in descending:
        faster //= size
        whole = min(size, bound // stride)
        total += whole * faster
        bound -= whole * stride
        if whole == size or bound == 0:
            return total
    return total + 1
