"""The function that makes the matrices of a kind of gate: its text, for emitted files and the kernel, and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the function for one matrix; its result is in memory until the function ends.

    `op` is what a report calls it: a product of two matrices, or anything else. A multiply-add is 2 FLOPs.
    """

    op: Literal["matmul", "elementwise"]
    shape: tuple[int, ...]
    """Of the result."""
    flops: int
    saved: bool = True
    """Whether the result is kept for backward, where the gate trains."""


@dataclass(frozen=True, slots=True)
class Made:
    """What makes matrices `[*per, rows, columns]` of the stored numbers `[*per, numbers]`, by torch alone.

    The call is `function(numbers, *arguments)`. Where `text` is None the function is one of
    `runtime/rotation_functions.py`; otherwise `text` defines it, and what it calls.
    """

    function: str
    arguments: tuple[int, ...]
    steps: tuple[Step, ...]
    text: str | None = None
    is_negated: bool = False
    """Whether the function takes the numbers with the other sign."""
