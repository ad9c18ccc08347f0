"""`diagonal`: each index of the axes is scaled by a trained number."""

from dataclasses import dataclass
from typing import ClassVar

from quanta_compiler.kinds.kind import Form, Kind, Merging, Part
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline


@dataclass(frozen=True, slots=True)
class Diagonal(Kind):
    """A stored diagonal."""

    name = "diagonal"
    meaning = "A gate that scales each index of its axes by a trained number."
    form = Form.DIAGONAL
    box = "diag"
    may_resize = False
    merging = Merging.BLOCKS
    look = Look("#e0f1e5", "#3b8558", "#1d3a2a", "#7cc698", Outline.PILL, ROUNDED)
    refusals: ClassVar[dict[str, str]] = {"to": "a diagonal gate cannot change its axes"}

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the diagonal, drawn as a column vector of fan-in 1; `identity` makes it ones."""
        return (Part("", (rows,), rows, 1),)

    def flops(self, rows: int, columns: int) -> int:
        """Return one product a number."""
        return rows

    def holds_products(self, rows: int, columns: int) -> bool:
        """Say yes."""
        return True
