"""The function that makes the matrices of a kind of gate: its text, for emitted files and the kernel, and its cost."""

import math
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["stored", "last"]
"""An operand of a step: what the gate stores, or the result of the step before."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A tensor that a step makes for one matrix."""

    numbers: int
    """Of 4 bytes each: one in float64 is two."""
    saved: bool = False
    """Whether it is kept for backward, where the gate trains."""
    lasts: int | None = None
    """How many further steps it is in memory for; to the function's end where None."""
    is_shared: bool = False
    """Whether all matrices have it together."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the function for one matrix. A multiply-add is 2 FLOPs.

    `op` is a product of two matrices, a pass over numbers, an exponential, the solution of a linear system, or a copy
    to another place, which no report lists.
    """

    op: Literal["matmul", "elementwise", "exponential", "solution", "place"]
    shape: tuple[int, ...]
    """Of the result."""
    flops: int
    saved: bool = True
    """Whether the result is kept for backward, where the gate trains."""
    takes: tuple[Memory, ...] | None = None
    """What it makes, in place of a result that is in memory until the function ends."""
    reads: tuple[Side, ...] = ("last",)
    """What a report lists as its operands."""
    is_right_fixed: bool = False
    """Whether the right side of a product comes from nothing stored, and has no gradient."""

    @property
    def memory(self) -> tuple[Memory, ...]:
        """Return what it makes."""
        return (Memory(math.prod(self.shape), self.saved),) if self.takes is None else self.takes


@dataclass(frozen=True, slots=True)
class Made:
    """What makes matrices `[*per, rows, columns]` of the stored numbers `[*per, numbers]`, by torch alone.

    Where the kind makes the transpose (`Kind.makes_transpose`) these are `[*per, columns, rows]`. The call is
    `function(numbers, *arguments)`, the arguments being what Python writes as text. Where `text` is None the function
    is one of `runtime/rotation_functions.py`; otherwise `text` defines it, and the functions that it calls: of nothing
    but torch, and the same for every gate of the kind. The last step's result is copied to the matrix itself.
    """

    function: str
    arguments: tuple[Any, ...]
    steps: tuple[Step, ...]
    text: str | None = None
    is_negated: bool = False
    """Whether the function takes the numbers with the other sign."""
