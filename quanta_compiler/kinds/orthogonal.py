"""`orthogonal`: made of a skew-symmetric matrix by the exponential or by Cayley's map."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from quanta_compiler.kinds.angles import RANK_PARAMETERS, check_kept, check_sides, lie_numbers
from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Part, Sides, sides
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline
from quanta_compiler.kinds.made import Made, Memory, Side, Step
from quanta_compiler.kinds.options import Key, Word, option
from quanta_compiler.text.words import plural

_MAP = Key(
    Word(("exp", "cayley")),
    "How an orthogonal matrix is made of a skew-symmetric one.",
    words=lambda name: f" by {name}",
)
_EXP_PRODUCTS = 8
"""An exponential by scaling and squaring: five products for its polynomial, and some squarings."""


@dataclass(frozen=True, slots=True)
class Orthogonal(Kind):
    """An orthogonal matrix, or orthonormal columns or rows of one."""

    map: str = option(_MAP, "exp")
    rank_parameters: int | None = option(RANK_PARAMETERS, None)

    name = "orthogonal"
    meaning = "A gate whose matrix is orthogonal, made of a skew-symmetric one."
    form = Form.FUNCTION
    box = "O {map}"
    schemes = ANGLES
    merging = Merging.BLOCKS
    smaller = "pauli"
    look = Look(
        *("#dbf0f0", "#2a7d80", "#173a3b", "#6fc3c6"),
        outline=Outline.SOFT,
        frame=ROUNDED,
        legend="O: an orthogonal matrix, by exp or cayley",
    )
    refusals: ClassVar[dict[str, str]] = {
        "rank": "`rank` goes with `kind: lowrank`; `kind: orthogonal` takes `rank_parameters`"
    }

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the entries below the diagonal of a skew-symmetric matrix, column by column."""
        numbers = lie_numbers(max(rows, columns), min(rows, columns), self.rank_parameters)
        return (Part("", (numbers,), rows, columns),)

    def made(self, rows: int, columns: int) -> Made:
        """Return the exponential or Cayley's map of a skew-symmetric matrix S, the smaller side made as columns.

        The first rows of Q are the first columns of its transpose, which S with the other sign makes.
        """
        size, smaller = max(rows, columns), min(rows, columns)
        kept = smaller if self.rank_parameters is None else min(smaller, self.rank_parameters)
        is_exponential = self.map == "exp"
        function = "exponential" if is_exponential else "cayley"
        steps = LieMap(size, smaller, kept, is_exponential).steps()
        return Made(function, (size, smaller, kept), steps, is_negated=rows < columns)

    def makes_transpose(self, rows: int, columns: int) -> bool:
        """Say that the smaller side is made as columns."""
        return rows < columns

    def holds_products(self, rows: int, columns: int) -> bool:
        """Say whether all orthogonal matrices can be had."""
        return rows == columns and not self.rank_parameters

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Check the sides, and K' against the columns."""
        yield from check_sides(gate, label, self.name)
        rows, columns = sides(gate)
        largest = min(rows, columns)
        has = f"its {rows} x {columns} matrix has {plural(largest, 'column')} of Lie parameters"
        yield from check_kept(self.rank_parameters, largest, has, label)


@dataclass(frozen=True, slots=True)
class LieMap:
    """The first columns of an orthogonal matrix, made of the first `kept` columns of a skew-symmetric one.

    Its steps are those of `exponential` and `cayley` in rotation_functions.py: of a matrix, or of its factors.
    """

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
        """Return the exponential of a matrix of `side` rows, or the solution of a system of `side` equations.

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
