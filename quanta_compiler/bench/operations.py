"""The single operations that a calibration is made of, as a module meets them: results are allocated anew.

Tensors are full of ones: drawing them would take longer than what is timed, which does not depend on the numbers.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from quanta_compiler.predict.grid import Grid, Grids, grid_points, rising

Run = Callable[[], object]
Point = tuple[int, ...]
Key = tuple[str, Point]
"""What is measured: a table, and a place in it."""
Maker = Callable[[torch.device], Run]
"""Makes tensors on a device and returns what is timed."""
Source = Callable[[Point, torch.device], torch.Tensor]
"""Makes a tensor that is no stretch of memory in the order of its dimensions."""

_ITEM_NUMBERS = 2**17
"""A product of more numbers than this takes as long in a batch as alone."""
_SHORT = 2
_LINE = 16
"""Numbers in a line of memory."""
_NOWHERE = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Effort:
    """What is measured, and how often."""

    sides: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096, 32768)
    """Of a product's rows, inner dimension and columns."""
    gradient_sides: tuple[tuple[int, ...], ...] = (
        *((1, 8, 64, 512, 4096), (16, 128, 1024, 8192, 65536), (1, 8, 64, 512, 4096)),
    )
    """Likewise of a sum over tokens, which the inner dimension is then."""
    batched_sides: tuple[int, ...] = (1, 4, 16, 64, 256)
    most_flops: int = 2**29
    """Of a product; what has more takes as long per FLOP as the nearest that has not."""
    most_numbers: int = 2**23
    """In an operand or a result."""
    batch_numbers: int = 2**21
    """In the operands and the result of a batch of products, unless that are more than `most_batch`."""
    most_batch: int = 4096
    stream_bytes: tuple[int, ...] = tuple(2**power for power in range(12, 28, 2))
    fresh_bytes: int = 2**26
    """Of a result that is so large that the system gives it anew every time."""
    numbers: tuple[int, ...] = (2**14, 2**18, 2**22)
    """In a tensor that is copied into another order."""
    inner: tuple[int, ...] = (1, 2, 4, 8, 16, 64, 256)
    between: tuple[int, ...] = (64, 1024, 16384, 131072)
    gathered: tuple[int, int, int] = (512, 64, 64)
    """Rows, columns and matrices, the latter innermost."""
    restarted: int = 2**18
    """Numbers in a tensor of many short dimensions."""
    tokens: tuple[int, ...] = (32, 512)
    """Of the batches that the kernel is measured on."""
    rounds: int = 2
    """How often everything is gone through, in an order drawn anew: nothing depends on one bad moment."""
    samples: int = 3
    """In a row."""
    sample_seconds: float = 1e-3


GPU_EFFORT = Effort(
    most_flops=2**36,
    most_numbers=2**26,
    batch_numbers=2**25,
    most_batch=2**16,
    stream_bytes=tuple(2**power for power in range(12, 32, 2)),
    numbers=(2**14, 2**20, 2**25),
    tokens=(128, 4096),
)
"""On a GPU, where most of what takes a CPU its time takes as long as a launch."""


def operation_jobs(effort: Effort) -> Iterator[tuple[Key, Maker]]:
    """Yield everything but whole modules: products, copies, elementwise products."""
    for point in grid_points([effort.sides] * 3):
        if _fits(point, effort):
            yield ("products", point), partial(_product, point)
    for point in grid_points(effort.gradient_sides):
        if _fits(point, effort):
            yield ("gradients", point), partial(_gradient, point)
    for point in grid_points([effort.batched_sides] * 3):
        if _item_numbers(point) <= _ITEM_NUMBERS:
            yield ("batched", point), partial(_batched, point, _batch(point, effort))
    for size in effort.stream_bytes:
        yield ("stream", (size,)), partial(_stream, size)
    yield ("restarted", ()), partial(_copied, _restarted_source, (effort.restarted,))
    yield ("gathered", ()), partial(_gathered, effort.gathered)
    yield ("fresh", ()), lambda device: lambda: torch.empty(effort.fresh_bytes // 4, device=device).zero_()
    yield ("filled", ()), lambda device: torch.empty(effort.fresh_bytes // 4, device=device).zero_
    for inner, numbers in grid_points((effort.inner, effort.numbers)):
        yield ("elementwise", (inner, numbers)), partial(_elementwise, inner, numbers)
        yield ("narrow", (inner, numbers)), partial(_copied, _transposed, (numbers // inner, inner))
        yield ("wide", (inner, numbers)), partial(_copied, _transposed, (inner, numbers // inner))
    for name, source in _SOURCES.items():
        for point in grid_points((effort.inner, effort.between, effort.numbers)):
            # A source may be larger than it should be, where so few numbers do not have its dimensions.
            if source(point, _NOWHERE).numel() <= point[-1]:
                yield (name, point), partial(_copied, source, point)


def grids(effort: Effort, seconds: dict[Key, float]) -> Grids:
    """Return the grids of a calibration from what was measured."""
    products = product_grid((effort.sides,) * 3, seconds, "products")
    items = grid_points([effort.batched_sides] * 3)
    batched = [
        seconds["batched", item] / _batch(item, effort) if ("batched", item) in seconds else products.at(*item)
        for item in items
    ]
    axes = (effort.inner, effort.numbers)
    points = grid_points(axes)
    transposed = [math.sqrt(seconds["narrow", point] * seconds["wide", point]) / point[1] for point in points]
    return Grids(
        products=products,
        gradients=product_grid(effort.gradient_sides, seconds, "gradients"),
        batched=rising(Grid((effort.batched_sides,) * 3, tuple(batched))),
        stream=rising(Grid((effort.stream_bytes,), tuple(seconds["stream", (size,)] for size in effort.stream_bytes))),
        elementwise=Grid(axes, tuple(seconds["elementwise", point] / point[1] for point in points)),
        transposed=Grid(axes, tuple(transposed)),
        **{name: _order_grid(effort, seconds, name) for name in _SOURCES},
    )


def _fits(point: Point, effort: Effort) -> bool:
    rows, inner, columns = point
    largest = max(rows * inner, inner * columns, rows * columns)
    return 2 * math.prod(point) <= effort.most_flops and largest <= effort.most_numbers


def _product(point: Point, device: torch.device) -> Run:
    """Return a product with a stored matrix `[columns, inner]`, as forward has it."""
    rows, inner, columns = point
    left, right = torch.ones(rows, inner, device=device), torch.ones(columns, inner, device=device).t()
    return lambda: left @ right


def _gradient(point: Point, device: torch.device) -> Run:
    """Return a sum over the rows of two tensors, as the gradient of a matrix is."""
    rows, inner, columns = point
    left, right = torch.ones(inner, rows, device=device).t(), torch.ones(inner, columns, device=device)
    return lambda: left @ right


def product_grid(axes: tuple[Point, ...], seconds: dict[Key, float], name: str) -> Grid:
    """Return the times of products; what was too large to be measured takes as long per FLOP as the nearest."""
    values = []
    for point in grid_points(axes):
        near: Point = point
        while (name, near) not in seconds:
            place = near.index(max(near))
            near = (*near[:place], axes[place][axes[place].index(near[place]) - 1], *near[place + 1 :])
        values.append(seconds[name, near] * math.prod(point) / math.prod(near))
    return rising(Grid(axes, tuple(values)))


def _item_numbers(point: Point) -> int:
    rows, inner, columns = point
    return rows * inner + inner * columns + rows * columns


def _batch(point: Point, effort: Effort) -> int:
    return min(effort.most_batch, max(4, effort.batch_numbers // _item_numbers(point)))


def _batched(point: Point, batch: int, device: torch.device) -> Run:
    rows, inner, columns = point
    left = torch.ones(batch, rows, inner, device=device)
    right = torch.ones(batch, columns, inner, device=device).transpose(1, 2)
    return lambda: torch.bmm(left, right)


def _stream(size: int, device: torch.device) -> Run:
    """Return a copy in order that reads and writes `size` bytes together, into memory that is there already."""
    source = torch.ones(size // 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _elementwise(inner: int, numbers: int, device: torch.device) -> Run:
    left, right = torch.ones(numbers // inner, inner, device=device), torch.ones(inner, device=device)
    return lambda: left * right


def _copied(source: Source, point: Point, device: torch.device) -> Run:
    made = source(point, device)
    return lambda: made.clone(memory_format=torch.contiguous_format)


def _transposed(point: Point, device: torch.device) -> torch.Tensor:
    return torch.ones(point, device=device).t()


def restart_seconds(effort: Effort, seconds: dict[Key, float], found: Grids) -> float:
    """Return what a copy takes to begin again, which it does for every index but those of the last two dimensions."""
    numbers = effort.restarted
    in_order = numbers * found.strided.at(_SHORT, effort.between[0], numbers)
    return max(0.0, seconds["restarted", ()] - in_order) / (numbers // _SHORT**2)


def _restarted_source(point: Point, device: torch.device) -> torch.Tensor:
    """Return a view of many short dimensions, none of which can be joined with its neighbour."""
    (numbers,) = point
    return torch.ones(numbers // _SHORT**4, *(_SHORT,) * 4, device=device).permute(0, 4, 3, 2, 1)


def _gathered(shape: tuple[int, int, int], device: torch.device) -> Run:
    source = torch.ones(shape, device=device)

    def run() -> None:
        for matrix in source.unbind(-1):
            matrix.contiguous()

    return run


def _run_source(point: Point, device: torch.device) -> torch.Tensor:
    """Return a view whose last `inner` numbers stand in a row, the next of the same line after `between` runs."""
    inner, between, numbers = point
    rest = max(2, 2 * _LINE // inner)
    lead = max(1, numbers // (inner * between * rest))
    return torch.ones(lead, between, rest, inner, device=device).permute(0, 2, 1, 3)


def _strided_source(point: Point, device: torch.device) -> torch.Tensor:
    """Return a view whose last `inner` numbers stand apart, the next of the same line after `between` numbers."""
    inner, between, numbers = point
    outer = max(1, between // inner)
    lead = max(1, numbers // (inner * outer * _LINE))
    return torch.ones(lead, inner, outer, _LINE, device=device).permute(0, 3, 2, 1)


_SOURCES: dict[str, Source] = {"runs": _run_source, "strided": _strided_source}


def _order_grid(effort: Effort, seconds: dict[Key, float], name: str) -> Grid:
    """Return the seconds of a number; where a tensor is too small for a point, those of its nearest."""
    values = []
    for inner, between, numbers in grid_points((effort.inner, effort.between, effort.numbers)):
        near: Point = (inner, between, numbers)
        while (name, near) not in seconds:
            if near[1] > effort.between[0]:
                near = (inner, effort.between[effort.between.index(near[1]) - 1], near[2])
            else:
                near = (inner, near[1], effort.numbers[effort.numbers.index(near[2]) + 1])
        values.append(seconds[name, near] / _SOURCES[name](near, _NOWHERE).numel())
    return Grid((effort.inner, effort.between, effort.numbers), tuple(values))
