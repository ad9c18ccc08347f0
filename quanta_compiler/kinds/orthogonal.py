"""`orthogonal`: a matrix of orthonormal columns or rows, by one of the maps of `kinds/maps.py`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from quanta_compiler.kinds.angles import RANK_PARAMETERS, check_kept, check_sides, lie_numbers
from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Part, Sides, sides
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline
from quanta_compiler.kinds.made import Made
from quanta_compiler.kinds.maps import CUT, MAPS, Columns, Map, drawn_gain
from quanta_compiler.kinds.options import Integer, Key, Word, option
from quanta_compiler.text.words import plural

_MAP = Key(
    Word(tuple(MAPS)),
    f"How an orthogonal matrix is made of the numbers below its diagonal; {' and '.join(CUT)} make one only about.",
    words=lambda name: f" by {name}",
)
_ORDER = Key(
    Integer(2, 64),
    f"The last power of the series of `map: {CUT[0]}` and `map: {CUT[1]}`.",
    hint="5 is the default; with more the matrix is nearer to an orthogonal one",
    words=lambda order: f" of order {order}",
    note=lambda order: f"order {order}",
)
_DEFAULT_ORDER = 5
"""The five terms that PEFT's OFT takes by default are order 3."""


@dataclass(frozen=True, slots=True)
class Orthogonal(Kind):
    """An orthogonal matrix, or orthonormal columns or rows of one."""

    map: str = option(_MAP, "exp")
    rank_parameters: int | None = option(RANK_PARAMETERS, None)
    order: int | None = option(_ORDER, None)

    name = "orthogonal"
    meaning = "A gate whose matrix is orthogonal, by one of several maps."
    form = Form.FUNCTION
    box = "O {map}"
    schemes = ANGLES
    merging = Merging.BLOCKS
    smaller = "pauli"
    look = Look(
        *("#dbf0f0", "#2a7d80", "#173a3b", "#6fc3c6"),
        outline=Outline.SOFT,
        frame=ROUNDED,
        legend="O: an orthogonal matrix, by the map that is named",
    )
    refusals: ClassVar[dict[str, str]] = {
        "rank": "`rank` goes with `kind: lowrank`; `kind: orthogonal` takes `rank_parameters`"
    }

    def __post_init__(self) -> None:
        if self.map in CUT and self.order is None:
            object.__setattr__(self, "order", _DEFAULT_ORDER)

    @property
    def _map(self) -> Map:
        return MAPS[self.map]

    def _columns(self, rows: int, columns: int) -> Columns:
        """Return what is made: the smaller side as columns."""
        smaller = min(rows, columns)
        kept = smaller if self.rank_parameters is None else min(smaller, self.rank_parameters)
        return Columns(max(rows, columns), smaller, kept)

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the numbers below the diagonal, column by column."""
        numbers = lie_numbers(max(rows, columns), min(rows, columns), self.rank_parameters)
        return (Part("", (numbers,), rows, columns),)

    def made(self, rows: int, columns: int) -> Made:
        """Return the function of the map, the smaller side made as columns.

        The first rows of a function of S are the first columns of its transpose, which S with the other sign makes.
        """
        one = self._columns(rows, columns)
        arguments = one.size, one.columns, one.kept, *(() if self.order is None else (self.order,))
        steps = tuple(self._map.steps(one, self.order))
        return Made(self._map.function, arguments, steps, is_negated=rows < columns and self._map.is_of_skew)

    def makes_transpose(self, rows: int, columns: int) -> bool:
        """Say that the smaller side is made as columns."""
        return rows < columns

    def ways(self, rows: int, columns: int) -> list[list[int]] | None:
        """Return what the map says of columns; of a wide matrix these are its rows."""
        reached = self._map.ways(self._columns(rows, columns))
        if reached is None or rows >= columns:
            return reached
        return [[row for row in range(rows) if column in reached[row]] for column in range(columns)]

    def gain(self, rows: int, columns: int, std: float) -> float | None:
        """Return what orthonormal directions pass, or about as much where a series is cut."""
        fixed = self.fixed_gain(rows, columns)
        if self._map.terms is None or self.order is None or fixed is None:
            return fixed
        return fixed * drawn_gain(self._map.terms(self.order), self._columns(rows, columns), std)

    def holds_products(self, rows: int, columns: int) -> bool:
        """Say whether all orthogonal matrices can be had."""
        return rows == columns and not self.rank_parameters and self._map.terms is None

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Check the sides, K' against the columns, and that the map has an order."""
        yield from check_sides(gate, label, self.name)
        rows, columns = sides(gate)
        largest = min(rows, columns)
        has = f"its {rows} x {columns} matrix has {plural(largest, 'column')} of Lie parameters"
        yield from check_kept(self.rank_parameters, largest, has, label)
        if self.order is not None and self.map not in CUT:
            message = f"`order` of {label} is that of a series, and `map: {self.map}` has none"
            yield Complaint(("order",), message, f"leave it out, or write `map: {CUT[0]}` or `map: {CUT[1]}`")
