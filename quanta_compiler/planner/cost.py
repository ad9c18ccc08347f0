"""What a contraction costs."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

Legs = frozenset[int]
Pairs = tuple[tuple[int, int], ...]
"""A contraction order in single-assignment form: tensor `n + i` is the contraction of pair `i` of `n` tensors."""


def volume(legs: Legs, sizes: Sequence[int]) -> int:
    """Return the number of elements of a tensor."""
    return math.prod(sizes[leg] for leg in legs)


def contraction_flops(left: Legs, right: Legs, result: Legs, sizes: Sequence[int]) -> int:
    """Return the FLOPs of one contraction: 2 a multiply-add, 1 an elementwise product."""
    union = left | right
    return volume(union, sizes) * (2 if len(union) > len(result) else 1)


def results(tensors: Sequence[Legs], output: Legs, pairs: Pairs) -> list[Legs]:
    """Return the legs of all tensors, given and made: a leg is summed as soon as nothing else needs it."""
    made = list(tensors)
    needed = Counter(chain.from_iterable(tensors))
    for left, right in pairs:
        union = made[left] | made[right]
        for leg in made[left] & made[right]:
            needed[leg] -= 1
        made.append(frozenset(leg for leg in union if leg in output or needed[leg] > 1))
    return made


def order_flops(tensors: Sequence[Legs], output: Legs, pairs: Pairs, sizes: Sequence[int]) -> int:
    """Return the FLOPs of a whole contraction order."""
    made = results(tensors, output, pairs)
    first = len(tensors)
    return sum(
        contraction_flops(made[left], made[right], made[first + i], sizes) for i, (left, right) in enumerate(pairs)
    )
