"""`pauli`: an orthogonal matrix of a few angles, a two-design circuit of RY and CZ."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from quanta_compiler.kinds.angles import RANK_PARAMETERS, check_kept, check_sides
from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Part, Sides, sides
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline
from quanta_compiler.kinds.options import LAYERS, option
from quanta_compiler.kinds.two_design import (
    cosine_sine_angles,
    is_power_of_two,
    pauli_angles,
    pauli_flops,
    powers_of_two,
    still_wires,
    widest_column,
)
from quanta_compiler.text.words import plural


@dataclass(frozen=True, slots=True)
class Pauli(Kind):
    """Q_P of Quantum-PEFT (Koike-Akino et al. 2025, eq. (2) and (4)); its first columns or rows where rectangular."""

    layers: int = option(LAYERS, 1)
    rank_parameters: int | None = option(RANK_PARAMETERS, None)

    name = "pauli"
    meaning = "A gate whose matrix is orthogonal, a circuit of a few rotations."
    form = Form.CIRCUIT
    box = "pauli L={layers}"
    schemes = ANGLES
    any_size = False
    look = Look(
        *("#fae3e8", "#b0486a", "#46202c", "#e595ab"),
        outline=Outline.SOFT,
        frame=ROUNDED,
        legend="pauli: an orthogonal matrix, L layers of RY and CZ",
    )
    refusals: ClassVar[dict[str, str]] = {
        "rank": "`rank` goes with `kind: lowrank`; `kind: pauli` takes `rank_parameters`"
    }

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the angles, in the order in which the circuit takes them."""
        numbers = pauli_angles(max(rows, columns), self.layers, self.rank_parameters)
        return (Part("", (numbers,), rows, columns),)

    def flops(self, rows: int, columns: int) -> int:
        """Return what the circuit costs, angle by angle."""
        return pauli_flops(max(rows, columns), self.layers, self.rank_parameters)

    def two_design(self, rows: int, columns: int) -> tuple[int, int, int | None]:
        """Return the circuit, which is on the larger side."""
        return max(rows, columns), self.layers, self.rank_parameters

    def starts_as_identity(self, rows: int, columns: int, scheme: str | None) -> bool:
        """Say that at zero the CZ of one layer are left over from four rows on; those of two cancel."""
        return scheme == "zeros" and (rows < 4 or self.layers % 2 == 0)

    def makes_transpose(self, rows: int, columns: int) -> bool:
        """Say that the smaller side is made as rows, which are rotated."""
        return rows >= columns

    def still_wires(self, rows: int, columns: int) -> tuple[int, ...]:
        """Return the wires that no angle turns."""
        return still_wires(max(rows, columns), self.layers, self.rank_parameters)

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Check the sides, K' against the angles of a column; warn of a size whose angles are mostly those of pairs."""
        yield from check_sides(gate, label, self.name)
        size = max(sides(gate))
        largest = widest_column(size)
        has = f"no column of its circuit has more than {plural(largest, 'angle')}"
        yield from check_kept(self.rank_parameters, largest, has, label)
        costly = self.costly_size(size, label)
        if costly is not None:
            hint = f"{costly[1]}; pad to it, or act on axes whose sizes are powers of two"
            yield Complaint(("axes",), costly[0], hint, is_warning=True, once=size)

    def costly_size(self, size: int, whose: str) -> tuple[str, str] | None:
        """Say how many of the angles turn pairs, and what the next power of two takes."""
        if is_power_of_two(size):
            return None
        pairs = cosine_sine_angles(size, self.rank_parameters)
        angles = pauli_angles(size, self.layers, self.rank_parameters)
        powers = " + ".join(map(str, powers_of_two(size)))
        turn = "turns a pair" if pairs == 1 else "turn pairs"
        message = (
            f"{pairs:,} of the {angles:,} angles of {whose} {turn} of {size} = {powers}: "
            "this part grows with the size, not with its logarithm"
        )
        above = 1 << size.bit_length()
        return message, f"a size of {above} takes {pauli_angles(above, self.layers, self.rank_parameters)} angles"
