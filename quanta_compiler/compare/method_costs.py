"""What a method that is no circuit costs for one layer, by the formula that it was published with.

Products and sums within the update are counted, one FLOP an element; adding the update to the layer's output is not, as
it is not for circuits. Backward takes the gradients of the method's own numbers and of what it reads.
"""

import math
from dataclasses import dataclass

from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.predict.work import Operation, Pass, Product, Work, joined


@dataclass(frozen=True, slots=True)
class MethodCost:
    """The figures of a method for one layer or one model, and for one batch of tokens."""

    trainable: int
    work: Work
    saved_bytes: int
    """Kept for backward for the whole batch; what the method reads is included where it is kept."""
    operator_flops: int | None = None
    """FLOPs of making the matrix of the update; None where the update is no matrix."""
    rank_lower: int | None = None
    rank_upper: int | None = None
    """Bounds of the update's rank, every matrix of numbers that train having full rank; None where it is no matrix."""
    note: str = ""


def linear_work(tokens: int, inner: int, columns: int) -> Work:
    """Return the work of a matrix that trains: `[tokens, inner] -> [tokens, columns]`."""
    return Work(
        (Product(tokens, inner, columns),),
        (Product(columns, tokens, inner, is_transposed=True), Product(tokens, columns, inner)),
    )


def elementwise(numbers: int, operands: int, flops: int = 1) -> Pass:
    """Return a pass that reads `operands` tensors of `numbers` numbers and writes one, with `flops` for each number."""
    return Pass(ELEMENT_BYTES * (operands + 1) * numbers, flops * numbers)


def dense_cost(in_features: int, out_features: int, _value: int, tokens: int) -> MethodCost:
    """Return the cost of a dense layer that trains."""
    rank = min(in_features, out_features)
    return MethodCost(
        trainable=in_features * out_features,
        work=linear_work(tokens, in_features, out_features),
        saved_bytes=ELEMENT_BYTES * tokens * in_features,
        operator_flops=0,
        rank_lower=rank,
        rank_upper=rank,
        note="the layer itself: trained in place, it adds to a step only its weight's gradient, a third of this",
    )


def dora_cost(in_features: int, out_features: int, rank: int, tokens: int) -> MethodCost:
    """Return the cost of DoRA: W' = m (W + B A) / norm(W + B A), row by row, the norms constant in backward."""
    weight, outputs, largest = in_features * out_features, tokens * out_features, min(in_features, out_features)
    return MethodCost(
        trainable=rank * (in_features + out_features) + out_features,
        work=joined(
            [_dora_norms(in_features, out_features, rank), _dora_update(in_features, out_features, rank, tokens)]
        ),
        # The input, A x, B A x and W x; of the scale m / norm itself, that minus one, and the norms.
        saved_bytes=ELEMENT_BYTES * (tokens * (in_features + rank) + 2 * outputs + 3 * out_features),
        # B A, added to W, its norms, and the scaled sum less W.
        operator_flops=2 * rank * weight + 5 * weight,
        rank_lower=max(0, largest - min(rank, largest)),
        rank_upper=largest,
        note="counted as PEFT computes it: every pass makes B A anew, for the norms of W + B A",
    )


def magnitude_cost(in_features: int, out_features: int, tokens: int, operator: Work) -> MethodCost:
    """Return what magnitudes add to a circuit T: W' = m (W + T) / norm(W + T); `operator` is the work of T's matrix."""
    weight, outputs, largest = in_features * out_features, tokens * out_features, min(in_features, out_features)
    return MethodCost(
        trainable=out_features,
        work=joined([Work((*operator.forward, *_row_norms(in_features, out_features)), ()), _scaled_sum(outputs)]),
        # T x and W x; of the scale m / norm itself, that minus one, and the norms.
        saved_bytes=ELEMENT_BYTES * (2 * outputs + 3 * out_features),
        # Added to W, its norms, and the scaled sum less W.
        operator_flops=5 * weight,
        rank_upper=largest,
        note="every training step makes the matrix of T anew, for the norms of W + T",
    )


def _row_norms(in_features: int, out_features: int) -> tuple[Operation, ...]:
    """Return the passes for m / norm of the rows of W + T, both being there."""
    weight = in_features * out_features
    return elementwise(weight, 2), Pass(ELEMENT_BYTES * weight, 2 * weight), elementwise(out_features, 2)


def _scaled_sum(outputs: int) -> Work:
    """Return the work of (scale - 1) W x + scale T x, W x and T x being there."""
    once, twice = elementwise(outputs, 1), elementwise(outputs, 2)
    # Backward for W x and for T x; then for the scale, by both terms, summed over tokens.
    return Work((once, once, twice), (once, once, elementwise(outputs, 2, 2), elementwise(outputs, 2, 2)))


def _dora_norms(in_features: int, out_features: int, rank: int) -> Work:
    """Return the work of m / norm(W + B A); PEFT makes B A by applying both to a unit matrix, for sharding's sake."""
    weight = in_features * out_features
    forward: tuple[Operation, ...] = (
        Pass(ELEMENT_BYTES * in_features**2),
        Product(in_features, in_features, rank),
        Product(in_features, rank, out_features),
        elementwise(weight, 1),
        *_row_norms(in_features, out_features),
    )
    return Work(forward, ())


def _dora_update(in_features: int, out_features: int, rank: int, tokens: int) -> Work:
    """Return the work of (scale - 1) W x + scale (B A x) alpha / r, W x being there already."""
    outputs = tokens * out_features
    # By alpha / r.
    times = Work((elementwise(outputs, 1),), (elementwise(outputs, 1),))
    down, up = linear_work(tokens, in_features, rank), linear_work(tokens, rank, out_features)
    return joined([down, up, times, _scaled_sum(outputs)])


def mora_cost(in_features: int, out_features: int, rank: int, tokens: int) -> MethodCost:
    """Return the cost of MoRA with rotation: groups of the input, each rotated by its place, through one matrix M.

    Raises:
        ValueError: the matrix has no size, or wants more numbers than the input has twice over.

    """
    # The root of (in + out) r to the nearest, then down to an even number.
    side = (math.isqrt(4 * (in_features + out_features) * rank) + 1) // 4 * 2
    if not 2 <= side <= 2 * in_features:
        raise ValueError(f"a square matrix of side {side} does not fit a layer of {in_features} -> {out_features}")
    groups = -(-in_features // side)
    padded = groups * side
    numbers = tokens * padded
    # The end of the last group is filled from the start of the input; outputs are cut, or repeated.
    fill = (Pass(2 * ELEMENT_BYTES * numbers),) if padded != in_features else ()
    cut = (Pass(2 * ELEMENT_BYTES * tokens * out_features),) if padded != out_features else ()
    rotation = (Pass(2 * ELEMENT_BYTES * numbers), elementwise(numbers, 2, 3))
    product = linear_work(tokens * groups, side, side)
    return MethodCost(
        trainable=side**2,
        work=Work((*fill, *rotation, *product.forward, *cut), (*cut, *product.backward, *rotation, *fill)),
        saved_bytes=ELEMENT_BYTES * numbers,
        # M, rotated for each group.
        operator_flops=3 * groups * side**2,
        rank_lower=max(0, in_features + min(out_features, padded) - padded),
        rank_upper=min(in_features, out_features),
        note=f"M has side {side}, and serves {groups} group{'s' if groups != 1 else ''} of the input in turn",
    )


def bottleneck_cost(in_features: int, out_features: int, width: int, tokens: int, note: str) -> MethodCost:
    """Return the cost of an adapter U f(D x) without biases, f such that backward needs its output alone."""
    numbers = tokens * width
    activation = Work((elementwise(numbers, 1),), (elementwise(numbers, 2),))
    down, up = linear_work(tokens, in_features, width), linear_work(tokens, width, out_features)
    return MethodCost(
        trainable=width * (in_features + out_features),
        work=joined([down, activation, up]),
        saved_bytes=ELEMENT_BYTES * (tokens * in_features + numbers),
        note=note,
    )


def prefix_cost(heads: int, head_width: int, key_value_width: int, length: int, tokens: int) -> MethodCost:
    """Return the cost of a prefix for one block: keys and values before those of one sequence of `tokens` tokens."""
    scores, prefix = heads * tokens * length, 2 * length * key_value_width
    keys = Product(tokens, head_width, length, heads)
    values = Product(tokens, length, head_width, heads)
    transposed = Product(length, tokens, head_width, heads, is_transposed=True)
    softmax = elementwise(scores, 1, 3)
    return MethodCost(
        trainable=prefix,
        work=Work((keys, softmax, values), (transposed, keys, elementwise(scores, 2, 3), values, transposed)),
        # The weights of attention, and the prefix copied before the other keys and values.
        saved_bytes=ELEMENT_BYTES * (scores + prefix),
        note="keys and values of each block, whatever the targets, trained as they are; the batch is one sequence",
    )


def repeated(costs: list[tuple[MethodCost, int]]) -> MethodCost:
    """Return the sum over a model: each cost as often as it occurs; ranks from the smallest bound to the largest."""
    operators = [cost.operator_flops * count for cost, count in costs if cost.operator_flops is not None]
    lower = [cost.rank_lower for cost, _ in costs if cost.rank_lower is not None]
    upper = [cost.rank_upper for cost, _ in costs if cost.rank_upper is not None]
    return MethodCost(
        trainable=sum(cost.trainable * count for cost, count in costs),
        work=Work(
            tuple(operation for cost, count in costs for operation in cost.work.forward * count),
            tuple(operation for cost, count in costs for operation in cost.work.backward * count),
        ),
        saved_bytes=sum(cost.saved_bytes * count for cost, count in costs),
        operator_flops=sum(operators) if operators else None,
        rank_lower=min(lower, default=None),
        rank_upper=max(upper, default=None),
        note="; ".join(dict.fromkeys(cost.note for cost, _ in costs)),
    )
