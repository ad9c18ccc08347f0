"""A calibration of no machine: a few points, and times that are easy to reckon with."""

from __future__ import annotations

import math

from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.engines import EngineRates
from quanta_compiler.predict.engines.cpu import FEATURES
from quanta_compiler.predict.grid import Grid, Grids, grid_points

_SIDES = (1, 16, 256)
_INNER, _BETWEEN, _NUMBERS = (1, 16, 256), (4, 1024), (2**10, 2**20)


def calibration() -> Calibration:
    """Return it: products at 10 GFLOP/s and slower where they are small, copies at some nanoseconds a number."""
    products = Grid((_SIDES,) * 3, tuple(1e-6 + 2e-10 * math.prod(point) for point in grid_points([_SIDES] * 3)))
    by_numbers = Grid((_INNER, _NUMBERS), tuple(4e-9 / inner**0.25 for inner, _ in grid_points((_INNER, _NUMBERS))))
    axes = (_INNER, _BETWEEN, _NUMBERS)
    orders = Grid(axes, tuple(8e-9 / inner**0.25 * between**0.1 for inner, between, _ in grid_points(axes)))
    return Calibration(
        device="cpu",
        name="a processor",
        threads=1,
        torch="2.6.0",
        measured="2025-01-31",
        grids=Grids(
            products=products,
            gradients=Grid(products.axes, tuple(2 * value for value in products.values)),
            batched=Grid(products.axes, tuple(value / 2 for value in products.values)),
            stream=Grid(((64, 2**16, 2**26),), (1e-8, 1e-5, 1e-2)),
            elementwise=by_numbers,
            transposed=by_numbers,
            runs=orders,
            strided=orders,
        ),
        fresh=1e-10,
        restart=4e-8,
        gathered=1e-8,
        kernel=EngineRates("cpu", tuple(1e-9 * (place + 1) for place in range(len(FEATURES)))),
        forward_launch=1e-5,
        recording=5e-6,
        backward_launch=2e-5,
    )
