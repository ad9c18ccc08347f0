"""The steps of `exponential` and `cayley` in rotation_functions.py: a function of a matrix, or of its factors."""

from dataclasses import dataclass

from quanta_compiler.kinds.angles import lie_numbers
from quanta_compiler.kinds.made import Memory, Side, Step

_EXP_PRODUCTS = 8
"""An exponential by scaling and squaring: five products for its polynomial, and some squarings."""


@dataclass(frozen=True, slots=True)
class LieMap:
    """The first columns of an orthogonal matrix, made of the first `kept` columns of a skew-symmetric one."""

    size: int
    columns: int
    kept: int
    is_exponential: bool

    def steps(self) -> tuple[Step, ...]:
        """Return the steps: on the whole matrix, or on its factors where they are smaller."""
        return self._whole() if 2 * self.kept >= self.size else self._factored()

    def _take(self, rows: int, columns: int = 1, *, saved: bool = False, lasts: int | None = None) -> Memory:
        # An exponential is computed in float64.
        return Memory((2 if self.is_exponential else 1) * rows * columns, saved, lasts)

    def _lower(self) -> Step:
        """Place the stored numbers below the diagonal, by two indices of 8 bytes for each."""
        numbers = lie_numbers(self.size, self.kept)
        given = (self._take(numbers, lasts=0),) if self.is_exponential else ()
        places = Memory(4 * numbers, saved=True, lasts=0, is_shared=True)
        shape = self.size, self.kept
        return Step("place", shape, 0, takes=(*given, places, self._take(*shape)))

    def _function(self, side: int, *, saved: bool = False) -> Step:
        """Return the exponential of a matrix of so many rows, or the solution of a system of so many equations.

        Beside the system's matrix, its factorization and the pivots, there are an identity and what is taken from it.
        """
        if self.is_exponential:
            taken = (self._take(side, side, saved=saved),)
            return Step("exponential", (side, side), 2 * _EXP_PRODUCTS * side**3, takes=taken)
        matrices = [self._take(side, side, saved=kept) for kept in (True, True, False, False)]
        pivots, solution = Memory(side, saved=True), self._take(side, self.columns, saved=True)
        flops = 2 * side**3 // 3 + 2 * side * side * self.columns
        return Step("solution", (side, self.columns), flops, takes=(*matrices, pivots, solution))

    def _product(self, rows: int, inner: int, columns: int, reads: tuple[Side, Side], *, saved: bool = False) -> Step:
        taken = (self._take(rows, columns, saved=saved),)
        return Step("matmul", (rows, columns), 2 * rows * inner * columns, takes=taken, reads=reads)

    def _whole(self) -> tuple[Step, ...]:
        size = self.size
        padded = self._take(size, size - self.kept, lasts=0)
        skew = Step("place", (size, size), 0, takes=(padded, self._take(size, size, saved=self.is_exponential)))
        return self._lower(), skew, self._function(size)

    def _factored(self) -> tuple[Step, ...]:
        """Return a function of the small matrix V^T U, and what it is multiplied by."""
        size, inner, columns = self.size, 2 * self.kept, self.columns
        scale, factor = self._take(1, saved=True), self._take(size, inner, saved=True)
        product = self._product(inner, size, inner, ("stored", "stored"))
        middle: tuple[Step, ...] = (self._function(inner),)
        if self.is_exponential:
            side = 2 * inner
            middle = (
                Step("place", (side, side), 0, takes=(self._take(side, side, saved=True),)),
                self._function(side, saved=True),
                self._product(inner, inner, columns, ("last", "stored"), saved=True),
            )
        update = self._product(size, inner, columns, ("stored", "last"))
        factors = Step("place", (size, inner), 0, takes=(scale, factor, factor))
        return self._lower(), factors, product, *middle, update
