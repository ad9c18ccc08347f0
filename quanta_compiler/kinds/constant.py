"""`constant`: a fixed matrix that the file gives."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quanta_compiler.kinds.checks import REPORTED, describe, number_problem, refuse, refuse_if
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Sides, sides
from quanta_compiler.kinds.looks import DOUBLE, Look, Outline
from quanta_compiler.kinds.options import Checked, Key, option


def check_matrix(value: Any) -> tuple[tuple[float, ...], ...]:
    """Check the value of a constant gate: a list of rows of one length."""
    if not isinstance(value, list | tuple) or not value:
        got = "an empty list" if value in ([], ()) else describe(value)
        refuse([((), f"`value` is a list of rows, got {got}", "such as `[[1, 0], [0, 1]]`")])
    problems: list[Any] = []
    width: int | None = None
    for r, row in enumerate(value):
        if len(problems) >= REPORTED:
            break
        if not isinstance(row, list | tuple) or not row:
            got = "an empty list" if row in ([], ()) else describe(row)
            problems.append(((r,), f"a row of `value` is a list of numbers, got {got}", None))
            continue
        width = len(row) if width is None else width
        if len(row) != width:
            problems.append(((r,), f"row {r} of `value` has length {len(row)}, the first has {width}", None))
        found = ((c, number_problem(number, "an entry of `value`")) for c, number in enumerate(row))
        problems += [((r, c), problem, None) for c, problem in found if problem is not None][:REPORTED]
    refuse_if(problems)
    return tuple(tuple(float(number) for number in row) for row in value)


_VALUE = Key(
    Checked(
        check_matrix,
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "number"}, "minItems": 1},
            "minItems": 1,
        },
    ),
    "The matrix, a list of rows.",
    example="such as `value: [[1, 0], [0, 1]]`",
)


@dataclass(frozen=True, slots=True)
class Constant(Kind):
    """A given matrix."""

    value: tuple[tuple[float, ...], ...] = option(_VALUE)

    name = "constant"
    meaning = "A gate with a fixed matrix that the file gives."
    form = Form.MATRIX
    box = "const"
    schemes = ()
    takes_per = False
    in_patterns = False
    any_size = False
    merging = Merging.BLOCKS
    look = Look("#e9ecf0", "#66707e", "#2a313b", "#a3adba", Outline.TWICE, DOUBLE)

    @property
    def given(self) -> tuple[tuple[float, ...], ...] | None:
        """Return the matrix."""
        return self.value

    def fixed_gain(self, rows: int, columns: int) -> float | None:
        """Return what independent inputs of one variance become."""
        return math.fsum(number * number for row in self.value for number in row) / rows

    def ways(self, rows: int, columns: int) -> list[list[int]] | None:
        """Return where a column has no zero."""
        if all(number for row in self.value for number in row):
            return None
        return [[r for r, row in enumerate(self.value) if row[column]] for column in range(columns)]

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Check that the matrix fits the axes."""
        rows, columns = sides(gate)
        given = len(self.value), len(self.value[0])
        if given != (rows, columns):
            needs = f"its axes need {rows} x {columns} (rows x columns)"
            yield Complaint(("value",), f"`value` of {label} is {given[0]} x {given[1]}, but {needs}")
