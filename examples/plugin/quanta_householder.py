"""`householder`: a product of reflections, as a kind of gate for quanta-compiler.

    pip install ./examples/plugin
    gates: [{axes: [0, 1], kind: householder, reflections: 4}]

A vector v stands for the reflection H = I - 2 v v^T / |v|^2, and k of them for the orthogonal matrix H_k ... H_1, n x n
of k n numbers. Rectangular gates have its first columns or rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quanta_compiler.kinds.kind import Complaint, Form, Kind, Part, Sides, sides
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline
from quanta_compiler.kinds.made import Made, Step
from quanta_compiler.kinds.options import Integer, Key, option

_REFLECTIONS = Key(
    Integer(1, 4096),
    "How many reflections the matrix is a product of; by default 4, or the size where that is smaller.",
    words=lambda count: f" of {count} reflection{'' if count == 1 else 's'}",
    hint="each takes as many numbers as the matrix has rows",
)

# What emitted files contain, and what the kernel runs: torch alone, in float32 at least.
_TEXT = '''
def householder(numbers: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return products of reflections: [..., k, n] -> [..., rows, columns]."""
    with torch.autocast(numbers.device.type, enabled=False):
        wide = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        vectors = torch.nn.functional.normalize(wide, dim=-1).unsqueeze(-1)
        size = numbers.shape[-1]
        matrix = torch.eye(size, columns, dtype=wide.dtype, device=wide.device)
        for vector in vectors.unbind(-3):
            matrix = matrix - 2 * (vector @ (vector.mT @ matrix))
        return matrix[..., :rows, :].to(numbers.dtype).contiguous()
'''


@dataclass(frozen=True, slots=True)
class Householder(Kind):
    """A product of reflections."""

    reflections: int | None = option(_REFLECTIONS, None)

    name = "householder"
    meaning = "A gate whose matrix is orthogonal, a product of reflections."
    form = Form.FUNCTION
    schemes = ("normal",)
    look = Look(*("#e8f3d6", "#5d7f1f", "#2a3614", "#a9cf62"), Outline.SOFT, ROUNDED, "H: a product of reflections")

    def _count(self, size: int) -> int:
        return min(4, size) if self.reflections is None else self.reflections

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return the vectors, `[k, n]`."""
        size = max(rows, columns)
        return (Part("", (self._count(size), size), rows, columns),)

    def fixed_gain(self, rows: int, columns: int) -> float:
        """Return what an orthogonal matrix, or a part of one, makes of the mean square of its input."""
        return min(rows, columns) / rows

    def made(self, rows: int, columns: int) -> Made:
        """Return the function, and what it costs: two products and a difference a reflection."""
        size = max(rows, columns)
        count = self._count(size)
        reflection = (
            Step("matmul", (1, columns), 2 * size * columns),
            Step("matmul", (size, columns), 2 * size * columns),
            Step("elementwise", (size, columns), 2 * size * columns, saved=False),
        )
        normalized = Step("elementwise", (count, size), 3 * count * size)
        return Made("householder", (rows, columns), (normalized, *reflection * count), _TEXT)

    def reference(self, numbers: Any, rows: int, columns: int) -> Any:
        """Return the product of the reflections, matrix by matrix."""
        import numpy as np

        size = max(rows, columns)
        matrix = np.eye(size)
        for vector in np.asarray(numbers).reshape(-1, size):
            matrix = (np.eye(size) - 2 * np.outer(vector, vector) / (vector @ vector)) @ matrix
        return matrix[:rows, :columns]

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Warn of more reflections than an orthogonal matrix is a product of."""
        size = max(sides(gate))
        if self._count(size) > size:
            message = f"`reflections` {self.reflections} of {label} is more than a {size} x {size} matrix needs"
            yield Complaint(("reflections",), message, f"`reflections: {size}` makes them all", is_warning=True)

    def note(self) -> str:
        """Return a short name."""
        return "H"
