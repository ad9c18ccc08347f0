"""`ry`: an axis of size 2 turned by a trained angle."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Part, Sides, shown
from quanta_compiler.kinds.looks import ROUNDED, TURNS, Outline


@dataclass(frozen=True, slots=True)
class Ry(Kind):
    """[[cos(t/2), -sin(t/2)], [sin(t/2), cos(t/2)]]."""

    name = "ry"
    meaning = "A gate that turns an axis of size 2 by a trained angle."
    form = Form.ANGLE
    box = "RY"
    schemes = ANGLES
    may_resize = False
    takes_to = False
    axes_in_patterns = 1
    any_size = False
    merging = Merging.ANGLES
    look = replace(TURNS, outline=Outline.SOFT, frame=ROUNDED, legend="RY: turns an axis of size 2 by its angle")
    refusals: ClassVar[dict[str, str]] = {
        "to": "an ry gate turns an axis and cannot resize it; `kind: orthogonal` can be rectangular"
    }

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the angle."""
        return (Part("", (1,), rows, columns),)

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Ask for one axis of size 2."""
        if len(gate.axes) != 1:
            message = f"{label} is an `ry` gate, which acts on one axis, and has {len(gate.axes)}"
            yield Complaint(("axes",), message, "write one gate for each axis, or use `kind: orthogonal`")
            return
        (axis,) = gate.axes
        if axis.size != 2:
            message = f"{label} is an `ry` gate, which turns an axis of size 2, and axis {shown(axis)} has size "
            hint = "`kind: orthogonal` and `kind: pauli` turn axes of any size"
            yield Complaint(("axes", 0), f"{message}{axis.size}", hint)
