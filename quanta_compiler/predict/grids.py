"""The grids of a calibration; every time is in seconds, every number a float32."""

from dataclasses import dataclass

from quanta_compiler.predict.grid import Grid

AXES = {
    **{"products": 3, "gradients": 3, "batched": 3, "stream": 1},
    **{"elementwise": 2, "transposed": 2, "runs": 3, "strided": 3},
}
"""How many axes each grid has."""


@dataclass(frozen=True, slots=True)
class Grids:
    """How long operations take, by their shapes."""

    products: Grid
    """Of a matrix product, by (rows, inner, columns)."""
    gradients: Grid
    """Likewise where the left side is stored transposed."""
    batched: Grid
    """Of one product of a batch, likewise."""
    stream: Grid
    """Of reading and writing in order, by the bytes of both together."""
    elementwise: Grid
    """Of a number of an elementwise product with a repeated operand, by (numbers in a row, all numbers)."""
    transposed: Grid
    """Of a number of a transposed matrix, by (the shorter side, all numbers)."""
    runs: Grid
    """Of a number copied into another order, by (numbers in a row on both sides, runs in between, all numbers).

    In between is what is copied before the copy comes back to the same line of memory.
    """
    strided: Grid
    """Likewise where nothing stands in a row on both sides, by (numbers of the last dimension, in between, all)."""

    def __post_init__(self) -> None:
        """Check that every grid has its axes.

        Raises:
            ValueError: one has not.

        """
        for name, count in AXES.items():
            found = len(getattr(self, name).axes)
            if found != count:
                raise ValueError(f"the grid {name!r} has {found} axes, not {count}")
