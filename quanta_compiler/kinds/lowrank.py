"""`lowrank`: the product B A of two trained factors."""

from collections.abc import Iterator
from dataclasses import dataclass

from quanta_compiler.kinds.kind import Complaint, Form, Kind, Part, Sides, sides
from quanta_compiler.kinds.limits import WIDTH
from quanta_compiler.kinds.looks import Look, Outline
from quanta_compiler.kinds.options import Integer, Key, option

_RANK = Key(
    Integer(1, WIDTH),
    "The rank r of the product B A.",
    words=lambda rank: f" of rank {rank}",
    example="such as `rank: 8`",
)


@dataclass(frozen=True, slots=True)
class Lowrank(Kind):
    """B A, with B `[rows, rank]` and A `[rank, columns]`."""

    rank: int = option(_RANK)

    name = "lowrank"
    meaning = "A gate whose matrix is the product B A of two trained factors."
    form = Form.FACTORS
    box = "r={rank}"
    look = Look("#ebe4f5", "#7654a8", "#33264a", "#b79be3", Outline.WAIST)

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return B and A; `zeros` makes B zero, and A as it is drawn by default."""
        return (
            Part(".B", (rows, self.rank), rows, self.rank),
            Part(".A", (self.rank, columns), self.rank, columns, zeros="kaiming_uniform"),
        )

    def flops(self, rows: int, columns: int) -> int:
        """Return what two products cost."""
        return 2 * self.rank * (rows + columns)

    def largest_rank(self, rows: int, columns: int) -> int:
        """Return r, or the smaller side."""
        return min(rows, columns, self.rank)

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Warn of a rank above what the matrix can have."""
        rows, columns = sides(gate)
        if self.rank > min(rows, columns):
            message = f"`rank` {self.rank} of {label} is more than its matrix can have ({rows} x {columns})"
            yield Complaint(("rank",), message, "`kind: dense` has fewer parameters", is_warning=True)
