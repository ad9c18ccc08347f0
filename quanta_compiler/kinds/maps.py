"""The maps of `orthogonal`: how a matrix of orthonormal columns is made of the numbers below its diagonal.

One row a map in `MAPS`: the function of `runtime/rotation_functions.py`, and what it costs. All take one number for
each entry below the diagonal of the first k columns, column by column; where these are zero it is the identity.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quanta_compiler.kinds.angles import lie_numbers
from quanta_compiler.kinds.givens import plane_steps
from quanta_compiler.kinds.made import Memory, Side, Step

Ways = list[list[int]]
"""For every column the rows where it is not zero."""
_EXP_PRODUCTS = 8
"""An exponential by scaling and squaring: five products for its polynomial, and some squarings."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The first columns of an orthogonal matrix of a size, made of the first `kept` columns of numbers."""

    size: int
    columns: int
    kept: int

    @property
    def is_whole(self) -> bool:
        """Say whether a function of S is taken as it is; a smaller S is taken in two factors."""
        return 2 * self.kept >= self.size

    def lower(self) -> Step:
        """Place the stored numbers below the diagonal, by two indices of 8 bytes for each."""
        places = Memory(4 * lie_numbers(self.size, self.kept), saved=True, lasts=0, is_shared=True)
        return Step("place", (self.size, self.kept), 0, takes=(places, _take(self.size, self.kept)))

    def skew(self, *, saved: bool) -> Step:
        """Place A - A^T."""
        padded = _take(self.size, self.size - self.kept, lasts=0)
        return Step("place", (self.size, self.size), 0, takes=(padded, _take(self.size, self.size, saved=saved)))

    def factors(self, *, saved: bool = False) -> tuple[Step, Step]:
        """Place U and V, S = U V^T, and multiply V^T U."""
        factor = _take(self.size, 2 * self.kept, saved=True)
        place = Step("place", (self.size, 2 * self.kept), 0, takes=(_take(1, saved=True), factor, factor))
        return place, _product(2 * self.kept, self.size, 2 * self.kept, ("stored", "stored"), saved=saved)


def _take(rows: int, columns: int = 1, *, saved: bool = False, lasts: int | None = None) -> Memory:
    return Memory(rows * columns, saved, lasts)


def _product(rows: int, inner: int, columns: int, reads: tuple[Side, Side], *, saved: bool = False) -> Step:
    taken = (_take(rows, columns, saved=saved),)
    return Step("matmul", (rows, columns), 2 * rows * inner * columns, takes=taken, reads=reads)


def _exponential(one: Columns, order: int | None) -> Iterator[Step]:
    """Yield the steps of `exponential`, which computes in float64: of two numbers of 4 bytes each."""
    first, *others = _exponential_in_one(one)
    given = _take(lie_numbers(one.size, one.kept), lasts=0)
    for step in (replace(first, takes=(given, *first.memory)), *others):
        takes = (each if each.is_shared else replace(each, numbers=2 * each.numbers) for each in step.memory)
        yield replace(step, takes=tuple(takes))


def _exponential_in_one(one: Columns) -> Iterator[Step]:
    yield one.lower()
    if one.is_whole:
        yield one.skew(saved=True)
        yield _exponential_of(one.size)
        return
    inner, side = 2 * one.kept, 4 * one.kept
    yield from one.factors()
    yield Step("place", (side, side), 0, takes=(_take(side, side, saved=True),))
    yield _exponential_of(side, saved=True)
    yield _product(inner, inner, one.columns, ("last", "stored"), saved=True)
    yield _product(one.size, inner, one.columns, ("stored", "last"))


def _exponential_of(side: int, *, saved: bool = False) -> Step:
    flops = 2 * _EXP_PRODUCTS * side**3
    return Step("exponential", (side, side), flops, takes=(_take(side, side, saved=saved),))


def _cayley(one: Columns, order: int | None) -> Iterator[Step]:
    """Yield the steps of `cayley`."""
    yield one.lower()
    if one.is_whole:
        yield one.skew(saved=False)
        yield _solution(one.size, one.columns)
        return
    yield from one.factors()
    yield _solution(2 * one.kept, one.columns)
    yield _product(one.size, 2 * one.kept, one.columns, ("stored", "last"))


def _solution(side: int, columns: int) -> Step:
    """Solve a system of `side` equations.

    Beside its matrix, the factorization and the pivots, there are an identity and what is taken from it.
    """
    matrices = [_take(side, side, saved=kept) for kept in (True, True, False, False)]
    taken = (*matrices, Memory(side, saved=True), _take(side, columns, saved=True))
    return Step("solution", (side, columns), 2 * side**3 // 3 + 2 * side * side * columns, takes=taken)


def _taylor(one: Columns, order: int | None) -> Iterator[Step]:
    """Yield the steps of `taylor`: a product, and a sum that is divided, for every term but the last."""
    assert order is not None
    return _series(one, order - 1, passes=2, is_halved=False)


def _neumann(one: Columns, order: int | None) -> Iterator[Step]:
    """Yield the steps of `neumann`: a product of S/2 and a sum for every term."""
    assert order is not None
    return _series(one, order, passes=1, is_halved=True)


def _series(one: Columns, terms: int, *, passes: int, is_halved: bool) -> Iterator[Step]:
    """Yield the steps of U f(V^T U) V^T for a polynomial f, or of S f(S); `passes` are those behind a product."""
    size, columns = one.size, one.columns
    inner = size if one.is_whole else 2 * one.kept
    yield one.lower()
    if one.is_whole:
        yield one.skew(saved=True)
        yield Step("place", (size, columns), 0, takes=(_take(size, columns),))
    else:
        yield from one.factors(saved=not is_halved)
    if is_halved:
        yield Step("place", (inner, inner), 0, takes=(_take(inner, inner, saved=True),))
    yield Step("elementwise", (inner, columns), inner * columns, takes=(_take(inner, columns, saved=True),))
    brief = tuple(_take(inner, columns, lasts=0) for _ in range(passes - 1))
    for place in range(terms):
        is_right_fixed = one.is_whole and place == 0
        product = (_take(inner, columns, lasts=1),)
        flops = 2 * inner * inner * columns
        yield Step("matmul", (inner, columns), flops, takes=product, is_right_fixed=is_right_fixed)
        taken = (*brief, _take(inner, columns, saved=True, lasts=2 if place + 1 < terms else None))
        yield Step("elementwise", (inner, columns), passes * inner * columns, takes=taken)
    yield _product(size, inner, columns, ("stored", "last"))


def _householder(one: Columns, order: int | None) -> Iterator[Step]:
    """Yield the steps of `householder`: the vectors, their products, a triangular system, and what it multiplies."""
    size, columns, kept = one.size, one.columns, one.kept
    yield one.lower()
    vectors = (_take(size, kept, saved=True), _take(kept, saved=True), _take(size, kept, saved=True))
    yield Step("elementwise", (size, kept), 4 * size * kept, takes=(_take(size, kept, lasts=0), *vectors))
    yield _product(kept, size, kept, ("stored", "stored"))
    triangle = (_take(kept, kept, lasts=0), _take(kept, kept, saved=True))
    yield Step("place", (kept, kept), 0, takes=triangle)
    solution = _take(kept, columns, saved=True), Memory(columns, saved=True, is_shared=True)
    yield Step("solution", (kept, columns), kept * kept * columns, takes=solution)
    yield _product(size, kept, columns, ("stored", "last"))


def _givens(one: Columns, order: int | None) -> Iterator[Step]:
    """Yield the steps of `planes`: all with one sum of indices are turned at once."""
    kept = min(one.kept, one.size - 1)
    angles = lie_numbers(one.size, kept)
    # The order of the angles and the indices of the rounds, of 8 bytes each.
    indices = Memory(2 * angles, saved=True, is_shared=True), Memory(2 * angles, is_shared=True)
    yield Step("place", (angles,), 0, takes=(*indices, Memory(angles, lasts=1)))
    sums = range(one.size + kept - 2, 0, -1)
    pairs = (min(kept, (both + 1) // 2) - max(0, both - one.size + 1) for both in sums)
    yield from plane_steps(one.size, one.columns, [(2 * count, True) for count in pairs])


def _givens_ways(one: Columns) -> Ways | None:
    """Return where the columns behind the kept ones are zero: the planes take index j to what is above it."""
    if min(one.columns, one.size - 1) <= one.kept:
        return None
    return [list(range(one.size if column < one.kept else column + 1)) for column in range(one.columns)]


def _taylor_terms(order: int) -> list[float]:
    return [1 / math.factorial(power) for power in range(order + 1)]


def _neumann_terms(order: int) -> list[float]:
    return [1.0, *(2.0 ** (1 - power) for power in range(1, order + 1)), 2.0 ** -(order + 1)]


@dataclass(frozen=True, slots=True)
class Map:
    """A way from numbers to a matrix."""

    function: str
    """In `runtime/rotation_functions.py`: of the numbers, the size, the columns, K', and the order where it has one."""
    steps: Callable[[Columns, int | None], Iterator[Step]]
    terms: Callable[[int], list[float]] | None = None
    """The coefficients of the powers of S, by the order, where a series is cut: it is orthogonal only about."""
    is_of_skew: bool = True
    """Whether the numbers with the other sign make the transpose; if not, a wide matrix is that of a tall one."""
    ways: Callable[[Columns], Ways | None] = lambda one: None
    """What is not zero; None where nothing is."""


MAPS: dict[str, Map] = {
    "exp": Map("exponential", _exponential),
    "cayley": Map("cayley", _cayley),
    "taylor": Map("taylor", _taylor, terms=_taylor_terms),
    "neumann": Map("neumann", _neumann, terms=_neumann_terms),
    "householder": Map("householder", _householder, is_of_skew=False),
    "givens": Map("planes", _givens, is_of_skew=False, ways=_givens_ways),
}
"""By the name in the file, in the order of the documentation; the first is the default."""
CUT = tuple(name for name, one in MAPS.items() if one.terms is not None)
"""Those that take an order."""


def drawn_gain(terms: Sequence[float], one: Columns, std: float) -> float:
    """Return the mean square of a column's norm, the numbers being drawn with that deviation, to leading order in n.

    The mean of S^(2m) is then diagonal, up to its sign, with one number in the kept rows and one in the others; it
    follows from those of lower powers as Catalan numbers do (S is semicircular, with a variance for each block).
    """
    size, kept, variance = one.size, one.kept, std * std
    powers = [(1.0, 1.0)]
    while len(powers) < len(terms):
        around = [((kept - 1) * first + (size - kept) * rest, kept * first) for first, rest in powers]
        pairs = list(zip(around, reversed(powers), strict=True))
        powers.append(
            (
                variance * sum(factor[0] * power[0] for factor, power in pairs),
                variance * sum(factor[1] * power[1] for factor, power in pairs),
            )
        )
    norms = [0.0, 0.0]
    for i, left in enumerate(terms):
        for j in range(i % 2, len(terms), 2):
            sign = -1 if (i + (i + j) // 2) % 2 else 1
            for side in (0, 1):
                norms[side] += sign * left * terms[j] * powers[(i + j) // 2][side]
    return (kept * norms[0] + (one.columns - kept) * norms[1]) / one.columns
