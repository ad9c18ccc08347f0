"""Layouts whose sizes the compiler chooses: `{auto: N}`."""

from __future__ import annotations

import math
from functools import cache

_SMALL_PRIMES = (2, 3, 5, 7, 11, 13)
_LOPSIDED = 4
"""A layout whose largest axis exceeds so many times the N-th root of the width is no good one."""


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


def _is_lopsided(n: int, factors: tuple[int, ...]) -> bool:
    return bool(factors[0] ** len(factors) > _LOPSIDED ** len(factors) * n)


def _largest_prime_at_most(n: int, bound: int) -> bool:
    """Say whether all prime factors of n are at most `bound`."""
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


def auto_layout(width: int, count: int) -> tuple[int, ...]:
    """Return `count` sizes for a vector of `width` numbers; their product exceeds `width` where it factors badly."""
    if not width:
        raise ValueError("width must be positive")
    factors = balanced_factors(width, count) if _may_fit(width, count) else (width,) + (1,) * (count - 1)
    if not _is_lopsided(width, factors):
        return factors
    # The power of two above is always a good one, so the search ends there at the latest.
    ceiling = 1 << width.bit_length()
    bound = _bound(ceiling, count)
    # Few axes: every second number or so is good. Many axes: good numbers are rare, but can be listed.
    candidates = _smooth_numbers(width, ceiling, bound) if bound < 17 else range(width + 1, ceiling + 1)
    for candidate in candidates:
        if _may_fit(candidate, count):
            factors = balanced_factors(candidate, count)
            if not _is_lopsided(candidate, factors):
                return factors
    raise AssertionError(f"no layout of {count} axes for {width}")


def _bound(n: int, count: int) -> int:
    """Return the largest size of an axis that is not lopsided for the width n."""
    bound = int(_LOPSIDED * n ** (1 / count)) + 1
    while bound**count > _LOPSIDED**count * n:
        bound -= 1
    return bound


def _may_fit(n: int, count: int) -> bool:
    return _largest_prime_at_most(n, _bound(n, count))
