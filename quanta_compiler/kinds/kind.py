"""What a kind of gate is: the record of a gate's options, which knows what every stage asks of it.

A gate has a kind, with the options that the file gives it: `Lowrank(rank=4)`. The record travels whole from the file to
the report. Stages know forms of matrices, not the names of kinds; what else differs between kinds is asked here.
No torch and no pydantic: reading a file loads this.
"""

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quanta_compiler.diagnostics import DataPath
from quanta_compiler.kinds.initialisers import ENTRIES
from quanta_compiler.kinds.looks import PLAIN, Look
from quanta_compiler.kinds.made import Made
from quanta_compiler.kinds.options import Key, keys_of


@dataclass(frozen=True, slots=True)
class AxisSize:
    """An axis by name and its number of indices."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Sides:
    """The axes of a gate by name."""

    axes: tuple[AxisSize, ...]
    """The contracted axes with their sizes before the gate."""
    to: tuple[AxisSize, ...]
    """What stands in their place afterwards; equal to `axes` where the file does not say otherwise."""
    per: tuple[AxisSize, ...] = ()
    """The axes that select the matrix."""


def sides(gate: Sides) -> tuple[int, int]:
    """Return the rows and the columns of a gate's matrix."""
    return math.prod(axis.size for axis in gate.to), math.prod(axis.size for axis in gate.axes)


def shown(axis: AxisSize) -> str:
    """Return an axis as messages call it."""
    return axis.name if axis.name.isdigit() else f"'{axis.name}'"


class Form(enum.Enum):
    """How a gate's matrix is there; a stage treats all kinds of a form alike."""

    MATRIX = "stored or given, entry by entry"
    FACTORS = "the product of two stored matrices, [rows, r] and [r, columns]"
    DIAGONAL = "one number for every index of the axes, which stay as they are"
    SIGNS = "a diagonal of fixed signs: -1 at the last index of all axes, 1 elsewhere"
    RESHAPE = "the identity, its first rows or its first columns: nothing to multiply with"
    ANGLE = "a rotation of a plane by a stored angle; those of all gates are made at once"
    FUNCTION = "what a function makes of the numbers that are stored"
    CIRCUIT = "a circuit of ANGLE and SIGNS on the bits of its index, planned like any other"


class Merging(enum.Enum):
    """With which gates a gate is composed where one matrix is cheaper than several."""

    BLOCKS = "with others whose matrix is worth building"
    ANGLES = "with others so small that going through the memory costs more than they do"
    NEVER = "with none"


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor that a gate stores: its shape without `per`, and how an initialiser sees it."""

    suffix: str
    """Behind the gate's name in the state dict: `.A`, or nothing."""
    shape: tuple[int, ...]
    fan_out: int
    fan_in: int
    zeros: str = "zeros"
    """The scheme that `init: zeros` means here."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a gate on its axes; the caller says which gate in front of `message`."""

    at: DataPath
    message: str
    hint: str | None = None
    is_warning: bool = False
    once: int | None = None
    """What makes two warnings the same to a reader: they are shown once for all gates of a pattern."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of gate with a gate's options. `rows` and `columns` are the sides of one matrix, whatever `per` says."""

    name: ClassVar[str]
    meaning: ClassVar[str]
    """One sentence, for the JSON Schema."""
    form: ClassVar[Form]
    schemes: ClassVar[tuple[str, ...]] = ENTRIES
    """The initialisers that it may be drawn by, the first by default where the circuit's is none of them; () where
    nothing is stored."""
    trains: ClassVar[bool]
    """Whether it stores numbers; the others are fixed by the file."""
    stores_angles: ClassVar[bool]
    """Whether what it stores are no entries of matrices: at zero its matrix is not zero."""
    is_diagonal: ClassVar[bool]
    """Whether it only scales: it has one number for every index of its axes."""
    is_made: ClassVar[bool]
    """Whether its matrix is computed, of what is stored or of nothing."""
    may_resize: ClassVar[bool] = True
    """Whether `to` of a gate may be anything but its axes."""
    takes_to: ClassVar[bool] = True
    takes_per: ClassVar[bool] = True
    axes_in_patterns: ClassVar[int | None] = None
    """How many axes a gate has, where a pattern of other gates cannot have its kind; None where any."""
    in_patterns: ClassVar[bool] = True
    any_size: ClassVar[bool] = True
    """Whether other sizes of its axes are as good."""
    merging: ClassVar[Merging] = Merging.NEVER
    smaller: ClassVar[str] = "lowrank"
    """A kind with fewer numbers, for a gate that has too many."""
    look: ClassVar[Look] = PLAIN
    box: ClassVar[str | None] = None
    """What the box of a gate says beside its name, with options in braces; the kind's name where None."""
    refusals: ClassVar[dict[str, str]] = {}
    """Why a key that other gates take does not go with it, by key, where there is more to say than that."""

    def __init_subclass__(cls) -> None:
        cls.trains = bool(cls.schemes)
        cls.stores_angles = cls.trains and cls.form in (Form.ANGLE, Form.FUNCTION, Form.CIRCUIT)
        cls.is_diagonal = cls.form in (Form.DIAGONAL, Form.SIGNS)
        cls.is_made = cls.form in (Form.SIGNS, Form.ANGLE, Form.FUNCTION, Form.CIRCUIT)

    # What it stores and costs

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the tensors that one matrix is stored as."""
        return (Part("", (rows, columns), rows, columns),) if self.trains else ()

    def numbers(self, rows: int, columns: int) -> int:
        """Return how many numbers one matrix stores."""
        return sum(math.prod(part.shape) for part in self.stored(rows, columns))

    def flops(self, rows: int, columns: int) -> int:
        """Return the FLOPs of the gate on one index of all axes that it does not contract, applied by itself."""
        return 2 * rows * columns

    def largest_rank(self, rows: int, columns: int) -> int:
        """Return the largest rank that the matrix can have."""
        return min(rows, columns)

    def fixed_gain(self, rows: int, columns: int) -> float | None:
        """Return the mean square of the output over that of the input; None where it follows from how it is drawn."""
        # Orthonormal whatever it stores: min(rows, columns) directions pass, spread over all rows.
        return min(rows, columns) / rows if self.stores_angles or not self.trains else None

    def gain(self, rows: int, columns: int, std: float) -> float | None:
        """Return that where the numbers are drawn with a standard deviation, where it makes a difference."""
        return self.fixed_gain(rows, columns)

    @property
    def given(self) -> tuple[tuple[float, ...], ...] | None:
        """Return the matrix, row by row, where the file gives it."""
        return None

    # What its matrix can be

    def ways(self, rows: int, columns: int) -> list[list[int]] | None:
        """Return for every column the rows that it reaches; None where that is all of them."""
        return None

    def starts_as_identity(self, rows: int, columns: int, scheme: str | None) -> bool:
        """Return whether a square matrix, drawn by a scheme (None: fixed), is the identity to begin with."""
        if self.stores_angles:
            return scheme == "zeros"
        return self.form is Form.RESHAPE or (scheme == "identity" and self.form in (Form.MATRIX, Form.DIAGONAL))

    def still_wires(self, rows: int, columns: int) -> tuple[int, ...]:
        """Return which bits of an index stay as they are, whatever trains; the slowest bit is 0."""
        return ()

    def made(self, rows: int, columns: int) -> Made | None:
        """Return the function that makes the matrices; only kinds of the form FUNCTION have one."""
        return None

    def two_design(self, rows: int, columns: int) -> tuple[int, int, int | None]:
        """Return the size, layers and K' of the circuit that the matrix is; only kinds of the form CIRCUIT have one."""
        raise NotImplementedError(f"kind {self.name} is no circuit")

    def reference(self, numbers: Any, rows: int, columns: int) -> Any:
        """Return one matrix, `[rows, columns]`, of the stored numbers, both numpy arrays of float64.

        What verification compares with, written without the function of `made`; kinds of this package stand in the
        oracle's own table instead.
        """
        raise NotImplementedError(f"kind {self.name} brings no reference")

    def makes_transpose(self, rows: int, columns: int) -> bool:
        """Say whether what is made is the transpose of the matrix."""
        return False

    def holds_products(self, rows: int, columns: int) -> bool:
        """Say whether the product of two such matrices is a third one."""
        return False

    # What files and pictures say

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Yield what is wrong with a gate of this kind on its axes; behind an error nothing more is looked at."""
        return iter(())

    def costly_size(self, size: int, whose: str) -> tuple[str, str] | None:
        """Return what makes a size costly to `whose` matrix, and what costs less; None where nothing is to be said."""
        return None

    def note(self) -> str:
        """Return what the box of a gate says beside its name."""
        return self.name if self.box is None else self.box.format_map(self.data())

    def notes(self) -> list[str]:
        """Return that, and what its options add."""
        said = ((key.note, getattr(self, name)) for name, key in self.options().items())
        return [self.note(), *(note(value) for note, value in said if note is not None and value is not None)]

    options = classmethod(keys_of)
    """Its options, in the order of a file that is written out."""

    def given_options(self) -> list[Key]:
        """Return the keys of the options that are not left out."""
        return [key for name, key in self.options().items() if getattr(self, name) is not None]

    def data(self) -> dict[str, Any]:
        """Return the options as a file writes them, what JSON can hold; those that are left out have no value."""
        values = {name: getattr(self, name) for name in self.options()}
        return {name: _plain(value) for name, value in values.items() if value is not None}

    def in_words(self) -> str:
        """Return the kind with its options: `lowrank of rank 4`, `pauli of 1 layer, K' 4`, `orthogonal by exp`."""
        return self.name + self.options_in_words()

    def options_in_words(self) -> str:
        """Return what is to be said after the kind's name, with a blank in front; nothing for most."""
        said = ((key.words, getattr(self, name)) for name, key in self.options().items())
        return "".join(words(value) for words, value in said if words is not None and value is not None)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
