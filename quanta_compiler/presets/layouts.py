"""Layouts whose sizes the compiler chooses: `{auto: N}`.

There are two rules. Files follow the second. The first is for adapters that were saved while it was the only one: their
circuits are read as what was trained.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain

from quanta_compiler.kinds import limits

AUTO_RULE = 2
"""The rule that files follow; 1 is that of adapters whose folder has no format marker."""
_ROUNDING = 1 - 1e-9
"""A bound in floating point times this is below the true one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout as written: sizes with or without names, or the number of axes to choose."""

    sizes: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None
    auto: int | None = None
    rule: int = AUTO_RULE
    """The rule by which sizes are chosen."""

    def sizes_for(self, width: int) -> tuple[int, ...]:
        """Return the sizes: as written, else those that the compiler chooses for a vector of `width` numbers."""
        return self.sizes if self.auto is None else auto_layout(width, self.auto, self.rule)

    def factors(self, in_features: int, out_features: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the factors of the input and of the output, equally many: those of one width serve for both."""
        columns = self.sizes_for(in_features)
        return columns, columns if in_features == out_features else auto_layout(out_features, len(columns), self.rule)


def auto_layout(width: int, count: int, rule: int = AUTO_RULE) -> tuple[int, ...]:
    """Return `count` sizes, descending, for a vector of `width` numbers; their product may exceed `width`.

    `rule` 2 is `cheapest_layout`, 1 is `least_padded_layout`.
    """
    if width < 1 or count < 1:
        raise ValueError(f"a layout has a positive width and number of axes, not {width} and {count}")
    if rule not in (1, 2):
        raise ValueError(f"the rules for {{auto: N}} are 1 and 2, not {rule!r}")
    return cheapest_layout(width, count) if rule == AUTO_RULE else least_padded_layout(width, count)


_UNEVEN = 4
"""A layout whose largest axis is more than this many times its smallest has most of its numbers in one gate."""


def even_layouts(width: int, count: int) -> list[tuple[int, ...]]:
    """Return the descending layouts of exactly this width with axes of about the same size, even ones first."""
    found = [sizes for sizes in factorizations(width, count) if sizes[0] <= _UNEVEN * sizes[-1]]
    return sorted(found, key=lambda sizes: (pair_numbers(sizes), sizes))


def pair_numbers(sizes: Sequence[int]) -> int:
    """Return the trained numbers of dense `all_pairs` gates: (n_j n_k)^2, over the pairs of axes."""
    total = sum(size**2 for size in sizes)
    return (total**2 - sum(size**4 for size in sizes)) // 2


@lru_cache(maxsize=4096)
def cheapest_layout(width: int, count: int) -> tuple[int, ...]:
    """Return the layout of `count` axes of 2 and more whose `all_pairs` has the fewest trained numbers.

    It is one of `width` itself or of a width up to 1 % above it; one of `width` itself is taken where its numbers are
    at most 1.3 times the fewest. Where there is none, it is the best of the next larger width that has one. Of layouts
    with equally many numbers the narrowest is taken, then the tuple that is lexicographically smallest: on two axes,
    where all layouts of a width are alike, the one whose largest axis is smallest.
    """
    if width <= 1 << count:
        return (2,) * count
    # No layout beyond what a circuit may be wide is of use.
    widest = max(width, min(width * 101 // 100, limits.WIDTH))
    # On two axes all layouts of a width are alike, and the narrowest width is the best.
    padded = _Search(width, widest, count).best if count > 2 else None
    exact = exact_layout(width, count, 13 * pair_numbers(padded) // 10 if padded else None)
    if exact or padded:
        return exact or padded or ()
    wider = exact_layout(_next_width(width, count), count)
    assert wider is not None
    return wider


def exact_layout(width: int, count: int, most: int | None = None) -> tuple[int, ...] | None:
    """Return the layout of exactly this width with the fewest numbers, at most `most`; None where it has none."""
    return _Search(width, width, count, most, _divisors(width)).best


class _Search:
    """The descending tuple of `count` sizes from 2, its product from `low` to `high`, with the fewest numbers.

    Sizes are chosen one after the other, the largest first, each from the root of what is left upwards. The numbers are
    a convex symmetric function of the sizes' logarithms, so that equal sizes for what is left are a lower bound, and
    the bound grows with the size that is chosen: past the first size that cannot win, none can.
    """

    def __init__(
        self, low: int, high: int, count: int, most: int | None = None, divisors: Sequence[int] | None = None
    ) -> None:
        self.low, self.high = low, high
        self.divisors = divisors
        """All sizes that are possible, where the product is one number."""
        self.best: tuple[int, ...] | None = None
        self._key: tuple[int, int, tuple[int, ...]] | None = None
        self._most: float = math.inf if most is None else most
        self._choose((), 1, count)

    def _choose(self, chosen: tuple[int, ...], product: int, left: int) -> None:
        need = -(-self.low // product)
        if left == 1:
            if need >= 2 and product * need <= self.high and (not chosen or need <= chosen[-1]):
                self._offer((*chosen, need))
            return
        first = max(2, _root(need, left))
        last = min(chosen[-1] if chosen else self.high, self.high // (product << (left - 1)))
        for size in self._sizes(first, last, need):
            if self._bound(chosen, product, size, left) * _ROUNDING > self._most:
                return
            self._choose((*chosen, size), product * size, left - 1)

    def _sizes(self, first: int, last: int, need: int) -> Iterable[int]:
        if self.divisors is None:
            return range(first, last + 1)
        return (size for size in self.divisors if first <= size <= last and need % size == 0)

    def _bound(self, chosen: tuple[int, ...], product: int, size: int, left: int) -> float:
        """Return the fewest numbers that any sizes, also fractions, of the other axes give."""
        squares = [n * n for n in (*chosen, size)]
        total = sum(squares)
        pairs = (total**2 - sum(square**2 for square in squares)) // 2
        rest = left - 1
        equal: float = max(self.low / (product * size), 1.0) ** (2 / rest)
        return pairs + total * rest * equal + rest * (rest - 1) / 2 * equal**2

    def _offer(self, sizes: tuple[int, ...]) -> None:
        key = (pair_numbers(sizes), math.prod(sizes), sizes)
        if key[0] <= self._most and (self._key is None or key < self._key):
            self.best, self._key, self._most = sizes, key, key[0]


def _root(n: int, k: int) -> int:
    """Return the smallest integer whose k-th power is at least n."""
    root: int = max(1, round(n ** (1 / k)))
    while root**k >= n and root > 1:
        root -= 1
    while root**k < n:
        root += 1
    return root


def _next_width(width: int, count: int) -> int:
    """Return the smallest number from `width` on that is a product of `count` factors from 2."""
    twos = 1 << (count - 1)
    best = -(-width // twos) * twos

    def extend(product: int, smallest: int, left: int) -> None:
        nonlocal best
        if left == 1:
            best = min(best, product * max(smallest, -(-width // product)))
            return
        factor = smallest
        while product * factor**left < best:
            extend(product * factor, factor, left - 1)
            factor += 1

    extend(1, 2, count)
    return best


_SMALL_PRIMES = (2, 3, 5, 7, 11, 13)
_LOPSIDED = 4
"""A layout whose largest axis exceeds this many times the N-th root of the width is padded by the older rule."""


def least_padded_layout(width: int, count: int) -> tuple[int, ...]:
    """Return the layout of the first rule: the first width from `width` on that has no lopsided one, balanced.

    Axes of 1 are taken where the width has fewer factors, and only the largest axis is looked at: 151936 becomes
    61x53x47x1.
    """
    # The power of two above is always a good one, so the search ends there at the latest.
    ceiling = 1 << width.bit_length()
    bound = _largest_size(ceiling, count)
    # Few axes: every second number or so is good. Many axes: good numbers are rare, but can be listed.
    others = _smooth_numbers(width, ceiling, bound) if bound < 17 else range(width + 1, ceiling + 1)
    for candidate in chain((width,), others):
        largest = _largest_size(candidate, count)
        if _largest_prime_at_most(candidate, largest):
            factors = balanced_factors(candidate, count)
            if factors[0] <= largest:
                return factors
    raise AssertionError(f"no layout of {count} axes for {width}")


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def balanced_factors(n: int, count: int) -> tuple[int, ...]:
    """Return `count` factors of n, descending, as equal as possible.

    That is: the largest as small as possible, then the smallest as large as possible, then the tuple lexicographically
    smallest.
    """
    divisors = _divisors(n)

    @cache
    def fits(m: int, k: int, low: int, high: int) -> bool:
        """Say whether m is a product of k factors from low to high."""
        if m == 1:
            return low == 1 or k == 0
        if k == 0 or high <= 1 or m > high**k or m < low**k:
            return False
        # The largest factor first: it is at least the k-th root of m.
        return any(m % d == 0 and d**k >= m and fits(m // d, k - 1, low, d) for d in divisors if low <= d <= high)

    largest = next(d for d in divisors if d**count >= n and fits(n, count, 1, d))
    smallest = next(d for d in reversed(divisors) if d <= largest and d**count <= n and fits(n, count, d, largest))
    factors, rest = [largest], n // largest
    while len(factors) < count:
        left = count - len(factors)
        factor = next(d for d in divisors if d >= smallest and rest % d == 0 and fits(rest, left, smallest, d))
        factors.append(factor)
        rest //= factor
    return tuple(factors)


def _largest_prime_at_most(n: int, bound: int) -> bool:
    p = 2
    while p * p <= n and p <= bound:
        while n % p == 0:
            n //= p
        p += 1
    return n <= bound


def _smooth_numbers(low: int, high: int, bound: int) -> list[int]:
    """Return the numbers above `low`, to `high`, whose prime factors are at most `bound` and at most 13, ascending."""
    numbers = [1]
    for p in _SMALL_PRIMES:
        if p <= bound:
            grown = numbers
            while grown := [n * p for n in grown if n * p <= high]:
                numbers = numbers + grown
    return sorted(n for n in numbers if n > low)


def _largest_size(n: int, count: int) -> int:
    """Return the largest size of an axis that is not lopsided for the width n."""
    return _root(_LOPSIDED**count * n + 1, count) - 1


def factorizations(width: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Return every way to write `width` as a product of `count` factors from 2, each in descending order."""
    return tuple(_factors(width, count, [size for size in reversed(_divisors(width)) if size > 1]))


def _factors(width: int, count: int, divisors: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the ways that take no factor but `divisors`, which descend."""
    if count == 0:
        if width == 1:
            yield ()
        return
    for place, factor in enumerate(divisors):
        if factor**count < width:
            return
        if width % factor == 0:
            for rest in _factors(width // factor, count - 1, divisors[place:]):
                yield (factor, *rest)
