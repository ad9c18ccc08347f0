"""Measured numbers over grids of shapes, and what lies between them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any


@dataclass(frozen=True, slots=True)
class Grid:
    """Positive numbers at the points of a grid: between two points along a straight line in the logarithms of all.

    Beyond its edges the grid has the value of the edge. ValueError where values and points do not belong together.
    """

    axes: tuple[tuple[int, ...], ...]
    """The points of every axis, ascending, from 1."""
    values: tuple[float, ...]
    """The last axis fastest."""

    def __post_init__(self) -> None:
        for axis in self.axes:
            if not axis or axis[0] < 1 or list(axis) != sorted(set(axis)):
                raise ValueError("the points of an axis must ascend from 1")
        if len(self.values) != math.prod(len(axis) for axis in self.axes):
            raise ValueError("a grid has one value for every point")
        if not all(0 < value < math.inf for value in self.values):
            raise ValueError("the values of a grid must be positive and finite")

    def at(self, *point: float) -> float:
        """Return the value at a point, one coordinate for every axis."""
        corners = [(0, 1.0)]
        for axis, coordinate in zip(self.axes, point, strict=True):
            low, share = _place(axis, coordinate)
            steps = [(low, 1 - share)] + ([(low + 1, share)] if share else [])
            corners = [(len(axis) * index + step, weight * part) for index, weight in corners for step, part in steps]
        if len(corners) == 1:
            return self.values[corners[0][0]]
        return math.exp(sum(weight * math.log(self.values[index]) for index, weight in corners))

    def clamped(self, *point: int) -> tuple[int, ...]:
        """Return the nearest point that does not lie beyond the upper edges."""
        return tuple(min(coordinate, axis[-1]) for axis, coordinate in zip(self.axes, point, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the values to four digits."""
        return {"axes": [list(axis) for axis in self.axes], "values": [float(f"{v:.4g}") for v in self.values]}

    @classmethod
    def from_dict(cls, data: Any) -> Grid:
        """Return the grid of plain data.

        Raises:
            ValueError: it is none.

        """
        if not isinstance(data, dict) or set(data) != {"axes", "values"}:
            raise ValueError("a grid has `axes` and `values`")
        axes, values = data["axes"], data["values"]
        if not isinstance(axes, list) or not all(isinstance(axis, list) for axis in axes):
            raise ValueError("the axes of a grid are lists")
        if not all(type(point) is int for axis in axes for point in axis):
            raise ValueError("the points of a grid are whole numbers")
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise ValueError("the values of a grid are numbers")
        return cls(tuple(map(tuple, axes)), tuple(map(float, values)))


AXES = {
    **{"products": 3, "gradients": 3, "batched": 3, "stream": 1},
    **{"elementwise": 2, "transposed": 2, "runs": 3, "strided": 3},
}
"""How many axes each grid has."""


@dataclass(frozen=True, slots=True)
class Grids:
    """How long operations take, by their shapes; every time is in seconds, every number a float32."""

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


def grid_points(axes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the points of a grid in the order of its values."""
    return list(product(*axes))


def rising(grid: Grid) -> Grid:
    """Return a grid that nowhere falls along an axis: more work never takes less time, whatever a measurement says."""
    values = list(grid.values)
    step = 1
    for axis in reversed(grid.axes):
        for index in range(len(values)):
            if index // step % len(axis):
                values[index] = max(values[index], values[index - step])
        step *= len(axis)
    return Grid(grid.axes, tuple(values))


def _place(axis: Sequence[int], coordinate: float) -> tuple[int, float]:
    """Return the point below a coordinate, and which share of the way to the next it is."""
    if coordinate <= axis[0]:
        return 0, 0.0
    if coordinate >= axis[-1]:
        return len(axis) - 1, 0.0
    low = bisect_right(axis, coordinate) - 1
    begin, end = axis[low], axis[low + 1]
    return low, math.log(coordinate / begin) / math.log(end / begin)
