"""Contraction orders: opt_einsum's optimizers behind limits that bound their time and memory.

The limits count tensors, never seconds, so a plan is the same on every machine.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from opt_einsum.paths import BranchBound, DynamicProgramming, greedy

Legs = frozenset[int]
Pairs = tuple[tuple[int, int], ...]
"""A contraction order in single-assignment form: tensor `n + i` is the contraction of pair `i` of `n` tensors."""

DP_TENSORS = 32
"""`dp` keeps sets of every size, which takes long on a chain of many tensors although it has few connected sets."""
DP_SUBGRAPHS = 17_000
"""`dp` compares all pairs of connected sets of tensors that cost less than gate by gate: a second, seldom five."""
DP_SUBGRAPHS_OF_HYPEREDGES = 1500
"""The same where a leg joins more than three tensors (`per`, diagonals), which leaves little that costs too much."""
WINDOW_SUBGRAPHS = 64
"""Windows run the same search once for every few gates, so each must be quick."""
BRANCH_TENSORS = {"branch-1": 64, "branch-2": 12}
"""Branch and bound is exponential in the number of tensors for every branch factor above 1."""
WINDOW_TENSORS = 1200
"""Windows take some milliseconds a tensor: past this number only gate by gate and blocks are left."""
GREEDY_TENSORS = 600
"""Greedy looks at all pairs that share a leg."""


def find_orders(tensors: Sequence[Legs], output: Legs, sizes: Sequence[int], optimizer: str) -> list[tuple[str, Pairs]]:
    """Return candidate orders, best guess first, each with the name of what found it.

    `optimizer` is `auto` or a name of the file format. An optimizer that would take too long on this network gives way
    to windows and greedy, as `auto` does. Gate by gate, in the given order of the tensors, is always among them.
    """
    sequential = ("sequential", sequential_order(len(tensors)))
    if len(tensors) <= 2:
        return [("dp" if optimizer == "auto" else optimizer, sequential[1])]
    if optimizer in ("auto", "dp") and _is_quick_for_dp(tensors, output):
        return [("dp", _dp(tensors, output, sizes)), sequential]
    if optimizer in BRANCH_TENSORS and len(tensors) <= BRANCH_TENSORS[optimizer]:
        branches = int(optimizer.removeprefix("branch-"))
        return [(optimizer, _run(BranchBound(nbranch=branches), tensors, output, sizes)), sequential]
    found = [("greedy", _run(greedy, tensors, output, sizes))] if len(tensors) <= GREEDY_TENSORS else []
    if optimizer == "greedy":
        return [*found, sequential]
    if len(tensors) <= WINDOW_TENSORS:
        found.insert(0, ("windows", _windows(tensors, output, sizes)))
    return [*found, sequential]


def cheapest(
    candidates: Sequence[tuple[str, Pairs]], tensors: Sequence[Legs], output: Legs, sizes: Sequence[int]
) -> tuple[str, Pairs]:
    """Return the candidate of fewest FLOPs, the first of equals."""
    return min(candidates, key=lambda candidate: order_flops(tensors, output, candidate[1], sizes))


def sequential_order(tensors: int) -> Pairs:
    """Return the order that takes the first tensor and contracts the others into it, one by one."""
    return tuple((0 if i == 1 else tensors + i - 2, i) for i in range(1, tensors))


def _run(optimizer: object, tensors: Sequence[Legs], output: Legs, sizes: Sequence[int]) -> Pairs:
    # Legs are integers here, and integers hash alike in every process: opt_einsum iterates sets, and with strings
    # its ties would be broken by PYTHONHASHSEED.
    size_of = {leg: sizes[leg] for tensor in tensors for leg in sorted(tensor)}
    path = optimizer([frozenset(tensor) for tensor in tensors], frozenset(output), size_of)  # type: ignore[operator]
    return _linear_to_pairs(path, len(tensors))


def _dp(tensors: Sequence[Legs], output: Legs, sizes: Sequence[int]) -> Pairs:
    # What gate by gate costs is enough to find something at least as good: left to itself, `dp` works its way up to
    # that bound from far below, which takes two to three times as long.
    pairs = sequential_order(len(tensors))
    made = results(tensors, output, pairs)
    bound = sum(volume(made[left] | made[right], sizes) for left, right in pairs)
    return _run(DynamicProgramming(minimize="flops", cost_cap=bound + 1), tensors, output, sizes)


def _linear_to_pairs(path: Sequence[tuple[int, ...]], tensors: int) -> Pairs:
    live = list(range(tensors))
    pairs: list[tuple[int, int]] = []
    for contraction in path:
        if len(contraction) == 1:
            # Nothing to contract: a path may move a tensor to the end of the list.
            live.append(live.pop(contraction[0]))
            continue
        low, high = sorted(contraction)
        right, left = live.pop(high), live.pop(low)
        pairs.append((left, right))
        live.append(tensors + len(pairs) - 1)
    return tuple(pairs)


def _windows(tensors: Sequence[Legs], output: Legs, sizes: Sequence[int]) -> Pairs:
    """Return `dp` over runs of consecutive tensors, each with what the runs before it have become."""
    pairs: list[tuple[int, int]] = []
    remaining = Counter(chain.from_iterable(tensors))
    state, state_legs = 0, tensors[0]
    first = 1
    while first < len(tensors):
        last = _window_end(tensors, output, state_legs, first)
        window = [state_legs, *tensors[first:last]]
        names = [state, *range(first, last)]
        remaining.subtract(chain.from_iterable(window))
        open_legs = frozenset(leg for tensor in window for leg in tensor if leg in output or remaining[leg] > 0)
        _, order = cheapest(
            [("dp", _dp(window, open_legs, sizes)), ("sequential", sequential_order(len(window)))],
            window,
            open_legs,
            sizes,
        )
        for left, right in order:
            pairs.append((names[left], names[right]))
            names.append(len(tensors) + len(pairs) - 1)
        state, state_legs = names[-1], results(window, open_legs, order)[-1]
        remaining.update(state_legs)
        first = last
    return tuple(pairs)


def _window_end(tensors: Sequence[Legs], output: Legs, state: Legs, first: int) -> int:
    last = min(first + 1, len(tensors))
    while last < len(tensors):
        window = [state, *tensors[first : last + 1]]
        if _count_connected(window, output, WINDOW_SUBGRAPHS) > WINDOW_SUBGRAPHS:
            break
        last += 1
    return last


def _is_quick_for_dp(tensors: Sequence[Legs], output: Legs) -> bool:
    if len(tensors) > DP_TENSORS:
        return False
    holders = Counter(leg for tensor in tensors for leg in tensor - output)
    limit = DP_SUBGRAPHS_OF_HYPEREDGES if any(count > 3 for count in holders.values()) else DP_SUBGRAPHS
    return _count_connected(tensors, output, limit) <= limit


def _count_connected(tensors: Sequence[Legs], output: Legs, limit: int) -> int:
    """Count the connected sets of tensors, giving up past `limit`: the measure of what `dp` has to look at."""
    holders: dict[int, int] = {}
    for i, tensor in enumerate(tensors):
        for leg in tensor - output:
            holders[leg] = holders.get(leg, 0) | 1 << i
    neighbours = [0] * len(tensors)
    for i, tensor in enumerate(tensors):
        for leg in tensor - output:
            neighbours[i] |= holders[leg]
        neighbours[i] &= ~(1 << i)
    count = 0
    for root in range(len(tensors)):
        # Every connected set is met once, at its lowest member: from there it grows by neighbours not yet excluded.
        stack = [(1 << root, neighbours[root], (1 << root + 1) - 1)]
        while stack:
            members, frontier, excluded = stack.pop()
            count += 1
            if count > limit:
                return count
            frontier &= ~excluded
            while frontier:
                lowest = frontier & -frontier
                frontier ^= lowest
                excluded |= lowest
                stack.append((members | lowest, frontier | neighbours[lowest.bit_length() - 1], excluded | members))
    return count


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
