"""Orthogonal matrices from few angles: the two-design circuit, its sum over any size, and how many numbers they take.

The simplified two-design circuit and the counts are those of Quantum-PEFT (Koike-Akino et al. 2025, eq. (2)); sizes
that are no power of two are a recursive cosine-sine decomposition (eq. (4) there). Gates are written in the order in
which they are applied, and angles are numbered in that order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from typing import TypeVar

from quanta_compiler.kinds.cz import Cz
from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.ry import Ry

Part = TypeVar("Part")
Made = TypeVar("Made")


TURN_FLOPS = 6
"""What turning a pair of numbers by an angle costs: two products, and two that are added to them."""


TURNS: dict[int, Kind] = {1: Ry(), 2: Cz()}
"""The gates of a two-design circuit, by the number of their axes."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A gate of a two-design circuit: `ry` on one wire, by the angle of that number, or `cz` on two."""

    kind: str
    wires: tuple[int, ...]
    angle: int | None = None


@lru_cache(maxsize=256)
def two_design(wires: int, layers: int, kept: int | None = None) -> tuple[Turn, ...]:
    """Return the simplified two-design circuit of `layers` entangling layers on `wires` wires of size 2.

    A column of RY on every wire; then for each layer CZ on (0,1), (2,3), ... and RY on those wires, CZ on (1,2),
    (3,4), ... and RY on those. With `kept` at most that many RY of each column are there, the first ones: the angles
    of the others stay at zero.
    """
    angles = count()
    turns = [Turn("ry", (wire,), next(angles)) for wire in range(wires)[:kept]]
    for start in (0, 1) * layers:
        pairs = [(wire, wire + 1) for wire in range(start, wires - 1, 2)]
        turns += [Turn("cz", pair) for pair in pairs]
        turns += [Turn("ry", (wire,), next(angles)) for wire in list(chain(*pairs))[:kept]]
    return tuple(turns)


def is_power_of_two(size: int) -> bool:
    """Return whether a size is a power of two: 1, 2, 4, ..."""
    return size & (size - 1) == 0


def powers_of_two(size: int) -> tuple[int, ...]:
    """Return the powers of two that add up to a size, the largest first: each is a half of its sum with the rest."""
    return tuple(1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1)


def summed(parts: Sequence[Part], own: Callable[[Part], Made], both: Callable[[Made, Made], Made]) -> Made:
    """Return what is made of a size from its powers of two: from the last two halves to the whole.

    `both` makes of two halves what diag(U1, U2) C diag(V1, V2) is made by, the second being a sum itself where more
    than two parts are left.
    """
    *firsts, last = parts
    made = own(last)
    for part in reversed(firsts):
        made = both(own(part), made)
    return made


def counted(size: int, own: Callable[[int], int], between: Callable[[int], int]) -> int:
    """Return what a size takes: what its powers of two take, both halves twice, and what is between, by their sum."""

    def both(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
        whole = first[0] + second[0]
        return whole, 2 * (first[1] + second[1]) + between(whole)

    return summed(powers_of_two(size), lambda power: (power, own(power)), both)[1]


def turned_pairs(size: int, kept: int | None) -> int:
    """Return how many pairs the rotation C between the halves of a size turns; none where it is a power of two."""
    second = size - powers_of_two(size)[0]
    return second if kept is None else min(kept, second)


def pauli_angles(size: int, layers: int, kept: int | None = None) -> int:
    """Return the number p(n) of angles of an orthogonal n x n matrix of a `pauli` gate.

    p(2^q) = (2L + 1) q - 2L; any other n is n1 + n2, diag(U1, U2) C diag(V1, V2), and p(n) = 2 p(n1) + 2 p(n2) + n2.
    With `kept` at most that many angles of each column count, the n2 rotations of C being one column.
    """

    def own(power: int) -> int:
        wires = power.bit_length() - 1
        # Two columns a layer, on the wires of the pairs that begin at an even wire and at an odd one. Counted without
        # listing them, so that a file with ten thousand wide gates is answered at once.
        columns = [(wires, 1), (wires // 2 * 2, layers), (max(0, wires - 1) // 2 * 2, layers)]
        return sum(times * (turned if kept is None else min(kept, turned)) for turned, times in columns)

    return counted(size, own, lambda whole: turned_pairs(whole, kept))


def pauli_flops(size: int, layers: int, kept: int | None = None) -> int:
    """Return the FLOPs of a `pauli` gate's n x n matrix on n numbers, angle by angle and never as a matrix.

    An RY is 2 x 2 on every pair: 4 n; a CZ is a product with every number: n; a pair that C turns takes 6. Rectangular
    gates cost what the square one costs: they read or keep a part of it.
    """

    def own(power: int) -> int:
        costs = {"ry": 4 * power, "cz": power}
        return sum(costs[turn.kind] for turn in two_design(power.bit_length() - 1, layers, kept))

    return counted(size, own, lambda whole: TURN_FLOPS * turned_pairs(whole, kept))


def still_wires(size: int, layers: int, kept: int | None = None) -> tuple[int, ...]:
    """Return the wires that no RY turns, of the two-design circuit on the largest power of two in a `pauli` gate.

    Where there are none, every entry of the n x n matrix is nonzero for almost all angles. Of n = 2^q the entries are
    nonzero that lie in a row and in a column with the same bits on these wires.
    """
    wires = size.bit_length() - 1
    turned = {turn.wires[0] for turn in two_design(wires, layers, kept) if turn.kind == "ry"}
    return tuple(wire for wire in range(wires) if wire not in turned)


def cosine_sine_angles(size: int, kept: int | None = None) -> int:
    """Return how many angles of a `pauli` gate turn the pairs of C: none where the size is a power of two."""
    return counted(size, lambda _: 0, lambda whole: turned_pairs(whole, kept))


def kept_angles(size: int, layers: int, before: int | None, after: int) -> list[int]:
    """Return which angles of a `pauli` gate are left, by their numbers, where K' goes from `before` to `after`."""

    def own(power: int) -> list[int]:
        wires = power.bit_length() - 1
        return [wires, *[wires // 2 * 2, max(0, wires - 1) // 2 * 2] * layers]

    def both(first: tuple[int, list[int]], second: tuple[int, list[int]]) -> tuple[int, list[int]]:
        return first[0] + second[0], [*first[1], *second[1], second[0], *first[1], *second[1]]

    left: list[int] = []
    place = 0
    for turned in summed(powers_of_two(size), lambda power: (power, own(power)), both)[1]:
        left += range(place, place + min(turned, after))
        place += turned if before is None else min(turned, before)
    return left


def widest_column(size: int) -> int:
    """Return the most angles that a column of a `pauli` gate has: the largest K' that says anything."""
    # The rotation between the first two halves is a column of its own, and the widest such.
    return max(powers_of_two(size)[0].bit_length() - 1, turned_pairs(size, None))
