"""How what a gate stores may be drawn: a row for every scheme, with the call that draws and what it does to the scale.

Rows and columns are those of what is drawn, `[*per, rows, columns]`; a diagonal is a column vector.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is drawn by a scheme."""

    rows: int
    columns: int
    std: float
    is_diagonal: bool = False


@dataclass(frozen=True, slots=True)
class Initialiser:
    """A scheme of the file format."""

    call: Callable[[str, Drawn], str]
    """The call that fills a tensor in an emitted module, from the tensor's name."""
    gain: Callable[[Drawn], float]
    """Columns times the mean square of an entry; for orthonormal directions the part of the rows that they fill."""
    method: tuple[str, ...] = ()
    """The method of the emitted module that is called, where torch has none."""
    std: float | None = None
    """The standard deviation where the file gives none; None where the scheme has none to give."""


_EMPTY = '    drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")'
_UNIFORM = (
    "@staticmethod",
    "def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:",
    _EMPTY,
    "    tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))",
)
_NORMAL = (
    "@staticmethod",
    "def _normal(tensor: torch.Tensor, std: float, generator: torch.Generator | None) -> None:",
    _EMPTY,
    "    tensor.copy_(drawn.normal_(0.0, std, generator=generator))",
)
_ORTHOGONAL = (
    "@staticmethod",
    "def _orthogonal(tensor: torch.Tensor, rows: int, columns: int, generator: torch.Generator | None) -> None:",
    "    # As torch.nn.init.orthogonal_ draws: orthonormal columns, or rows where they are fewer.",
    _EMPTY,
    "    drawn = drawn.normal_(generator=generator).view(-1, rows, columns)",
    "    q, r = torch.linalg.qr(drawn if rows >= columns else drawn.mT)",
    "    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)",
    "    tensor.copy_((q if rows >= columns else q.mT).reshape(tensor.shape))",
)


def _passing(drawn: Drawn) -> float:
    """Return the gain of min(rows, columns) orthonormal directions, spread over all rows."""
    return min(drawn.rows, drawn.columns) / drawn.rows


def _identity(tensor: str, drawn: Drawn) -> str:
    if drawn.is_diagonal:
        return f"{tensor}.fill_(1.0)"
    return f'{tensor}.copy_(torch.eye({drawn.rows}, {drawn.columns}, device="cpu"))'


# The bounds are those of `torch.nn.init` for `[fan_out, fan_in]`.
INITIALISERS: dict[str, Initialiser] = {
    # As torch.nn.Linear draws its weight: uniform, bound 1/sqrt(columns).
    "kaiming_uniform": Initialiser(
        lambda tensor, drawn: f"self._uniform({tensor}, {1 / math.sqrt(drawn.columns)!r}, generator)",
        lambda drawn: 1 / 3,
        _UNIFORM,
    ),
    "xavier_uniform": Initialiser(
        lambda tensor, drawn: f"self._uniform({tensor}, {math.sqrt(6 / (drawn.columns + drawn.rows))!r}, generator)",
        lambda drawn: 2 * drawn.columns / (drawn.rows + drawn.columns),
        _UNIFORM,
    ),
    "normal": Initialiser(
        lambda tensor, drawn: f"self._normal({tensor}, {drawn.std!r}, generator)",
        lambda drawn: drawn.columns * drawn.std * drawn.std,
        _NORMAL,
        std=0.02,
    ),
    "orthogonal": Initialiser(
        lambda tensor, drawn: f"self._orthogonal({tensor}, {drawn.rows}, {drawn.columns}, generator)",
        _passing,
        _ORTHOGONAL,
    ),
    "identity": Initialiser(_identity, lambda drawn: 1.0 if drawn.is_diagonal else _passing(drawn)),
    "zeros": Initialiser(lambda tensor, drawn: f"{tensor}.zero_()", lambda drawn: 0.0),
}
"""By the name in the file, in the order of the documentation; the first is the default."""
ENTRIES = tuple(INITIALISERS)
"""Schemes for entries of matrices."""
ANGLES = ("zeros", "normal")
"""Schemes for angles, and for what else is no entry: at zero a matrix is the identity."""
