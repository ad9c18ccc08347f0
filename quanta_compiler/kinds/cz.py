"""`cz`: -1 where both axes are at their last index, 1 elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Sides
from quanta_compiler.kinds.looks import TURNS, Outline


@dataclass(frozen=True, slots=True)
class Cz(Kind):
    """A fixed sign."""

    name = "cz"
    meaning = "A fixed gate on two axes: -1 at the last index of both, 1 elsewhere."
    form = Form.SIGNS
    box = ""
    schemes = ()
    may_resize = False
    takes_to = False
    takes_per = False
    axes_in_patterns = 2
    any_size = False
    merging = Merging.ANGLES
    look = replace(TURNS, outline=Outline.DOTS, legend="cz: turns the sign where both axes are at their last index")
    refusals: ClassVar[dict[str, str]] = {"to": "a cz gate is diagonal and cannot change its axes"}

    def flops(self, rows: int, columns: int) -> int:
        """Return one product a number."""
        return rows

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Ask for two axes."""
        if len(gate.axes) != 2:
            count = "one" if len(gate.axes) == 1 else str(len(gate.axes))
            message = f"{label} is a `cz` gate, which acts on two axes, and has {count}"
            yield Complaint(("axes",), message, "name both axes, such as `axes: [0, 1]`")
