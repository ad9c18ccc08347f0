"""`orthogonal`: made of a skew-symmetric matrix by the exponential or by Cayley's map."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from quanta_compiler.kinds.angles import RANK_PARAMETERS, check_kept, check_sides, lie_numbers
from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Part, Sides, sides
from quanta_compiler.kinds.lie import LieMap
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline
from quanta_compiler.kinds.made import Made
from quanta_compiler.kinds.options import Key, Word, option
from quanta_compiler.text.words import plural

_MAP = Key(
    Word(("exp", "cayley")),
    "How an orthogonal matrix is made of a skew-symmetric one.",
    words=lambda name: f" by {name}",
)


@dataclass(frozen=True, slots=True)
class Orthogonal(Kind):
    """An orthogonal matrix, or orthonormal columns or rows of one."""

    map: str = option(_MAP, "exp")
    rank_parameters: int | None = option(RANK_PARAMETERS, None)

    name = "orthogonal"
    meaning = "A gate whose matrix is orthogonal, made of a skew-symmetric one."
    form = Form.FUNCTION
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

    def note(self) -> str:
        """Return the map."""
        return f"O {self.map}"
