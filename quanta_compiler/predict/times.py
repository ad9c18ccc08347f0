"""Work and a calibration make a time: every operation takes what its arithmetic or its memory takes, and its launch."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.engines import MODELS
from quanta_compiler.predict.engines.cpu import is_fresh
from quanta_compiler.predict.work import FusedPass, MatrixFunction, Operation, Pass, Permutation, Product, Work


@dataclass(frozen=True, slots=True)
class Times:
    """How long one batch is expected to take."""

    forward_seconds: float
    """A forward pass without gradient."""
    step_seconds: float
    """Forward and backward, the input's gradient included."""


def predicted_times(work: Work, calibration: Calibration) -> Times:
    """Return the expected times of some work on the calibrated device.

    Raises:
        ValueError: the work is the kernel's, of which the calibration knows nothing.

    """
    launch = calibration.forward_launch
    forward = _total(work.forward, calibration, launch)
    if calibration.device == "cuda":
        recorded = _total(work.forward, calibration, launch + calibration.recording)
    else:
        recorded = forward + calibration.recording * sum(not isinstance(one, FusedPass) for one in work.forward)
    return Times(forward, recorded + _total(work.backward, calibration, calibration.backward_launch))


def _total(operations: Iterable[Operation], calibration: Calibration, launch: float) -> float:
    """Return the time of operations one after the other; a GPU works on one while the next is called."""
    total = 0.0
    for operation in operations:
        seconds = seconds_of(operation, calibration)
        if isinstance(operation, FusedPass):
            total += seconds
        else:
            total += max(seconds, launch) if calibration.device == "cuda" else seconds + launch
    return total


def seconds_of(operation: Operation, calibration: Calibration) -> float:
    """Return the expected time of one operation, without what calls it.

    Raises:
        ValueError: it is the kernel's, of which the calibration knows nothing.

    """
    match operation:
        case FusedPass():
            rates = calibration.kernel
            if rates is None:
                raise ValueError(
                    "this calibration was made without the kernel: `quanta bench --calibrate` makes another"
                )
            counts = MODELS[rates.engine].counts
            return rates.time(counts(operation.table, operation.tokens, operation.backward, calibration.threads))
        case MatrixFunction():
            # At the rate of the products that it is made of.
            product = Product(operation.rows, operation.rows, operation.columns, operation.batch)
            seconds = _product_seconds(product, calibration) * operation.flops / product.flops
            return seconds * (2 if operation.is_double else 1)
        case Product():
            result, seconds = _product_result(operation), _product_seconds(operation, calibration)
        case Pass():
            result, seconds = operation.bytes // 2, _pass_seconds(operation, calibration)
        case Permutation():
            result, seconds = operation.bytes // 2, _permutation_seconds(operation, calibration)
    # The time of a fresh result beside that of one whose memory is there already.
    return seconds + (calibration.fresh * result if is_fresh(result) else 0.0)


def _product_seconds(product: Product, calibration: Calibration) -> float:
    """Return the time of a product at the rate of its shape, or of the nearest that was measured."""
    shape = (product.rows, product.inner, product.columns)
    alone = calibration.grids.gradients if product.is_transposed else calibration.grids.products
    batched = calibration.grids.batched
    is_alone = product.batch == 1 or product.is_one_by_one or max(shape) > batched.axes[0][-1]
    grid = alone if is_alone else batched
    nearest = grid.clamped(*shape)
    seconds = product.batch * grid.at(*nearest) * math.prod(shape) / math.prod(nearest)
    moved = 4 * product.batch * (product.rows + product.columns) * product.inner + _product_result(product)
    return max(seconds, _stream_seconds(moved, calibration))


def _product_result(product: Product) -> int:
    return 4 * product.batch * product.rows * product.columns


def _pass_seconds(walk: Pass, calibration: Calibration) -> float:
    streamed = _stream_seconds(walk.bytes, calibration)
    if walk.inner is None:
        return streamed
    numbers = walk.bytes / 8
    return max(streamed, numbers * calibration.grids.elementwise.at(walk.inner, numbers))


def _stream_seconds(size: float, calibration: Calibration) -> float:
    """Return the time of reading and writing `size` bytes together, in order."""
    stream = calibration.grids.stream
    return stream.at(size) * max(1.0, size / stream.axes[0][-1])


def _permutation_seconds(copy: Permutation, calibration: Calibration) -> float:
    """Return the time of a copy into another order: what counts is how much stands in a row on both sides.

    And how many lines of memory are passed before the copy comes back to the rest of one that it has read.
    """
    numbers = copy.numbers
    streamed = _stream_seconds(copy.bytes, calibration)
    if copy.is_transpose and len(copy.sizes) == 2:
        return max(streamed, numbers * calibration.grids.transposed.at(min(copy.sizes), numbers))
    if copy.is_one_by_one:
        return max(streamed, numbers * calibration.gathered)
    has_runs = copy.strides[-1] == 1
    nearest = copy.strides.index(min(copy.strides[:-1] if has_runs else copy.strides))
    inner, between = copy.sizes[-1], math.prod(copy.sizes[nearest + 1 :])
    if has_runs:
        per_number = calibration.grids.runs.at(inner, between // inner, numbers)
    else:
        per_number = calibration.grids.strided.at(inner, between, numbers)
    restarts = math.prod(copy.sizes[:-2])
    return max(streamed, numbers * per_number + restarts * calibration.restart)
