"""The orthogonal matrix of a `pauli` gate as turnings of neighbouring numbers, one after the other, for a kernel.

Of few columns this takes less time than blocks of rotations, whose matrices are made whatever they are applied to.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from quanta_compiler.kinds.two_design import powers_of_two, turned_pairs, two_design

TURN, PAIRS, SIGN = range(3)
SHORT = 2**23
"""Numbers turned, one after the other, from which on blocks are faster."""


@dataclass(frozen=True, slots=True)
class Turning:
    """A step on `numbers` numbers from `place` on.

    TURN: those `stride` apart are turned by half of one angle. PAIRS: each is turned with one from `other` on, by half
    of an angle of its own, `angle` being the first. SIGN: those whose places have the bits `stride` and `other` change
    their sign.
    """

    kind: int
    angle: int
    place: int
    numbers: int
    stride: int
    other: int


@lru_cache(maxsize=256)
def turnings(size: int, layers: int, kept: int | None) -> tuple[Turning, ...]:
    """Return the matrix of a size, in the order in which it is applied; angles are numbered as the gate has them."""
    return tuple(_summed(list(powers_of_two(size)), 0, layers, kept, count()))


def _summed(powers: list[int], place: int, layers: int, kept: int | None, angles: "count[int]") -> list[Turning]:
    """Return diag(U1, U2) C diag(V1, V2), applied from right to left; V2 and U2 are such sums of what is left."""
    first, *rest = powers
    if not rest:
        return _two_design(first, place, layers, kept, angles)

    def halves() -> list[Turning]:
        return [
            *_two_design(first, place, layers, kept, angles),
            *_summed(rest, place + first, layers, kept, angles),
        ]

    inner = halves()
    pairs = turned_pairs(sum(powers), kept)
    inner.append(Turning(PAIRS, next(angles), place, pairs, 0, place + first))
    for _ in range(pairs - 1):
        next(angles)
    return inner + halves()


def _two_design(size: int, place: int, layers: int, kept: int | None, angles: "count[int]") -> list[Turning]:
    wires = size.bit_length() - 1
    found: list[Turning] = []
    for turn in two_design(wires, layers, kept):
        strides = [size >> (wire + 1) for wire in turn.wires]
        if turn.angle is not None:
            found.append(Turning(TURN, next(angles), place, size, strides[0], 0))
        else:
            found.append(Turning(SIGN, 0, place, size, strides[0], strides[1]))
    return found


def turned_numbers(size: int, layers: int, kept: int | None, columns: int) -> int:
    """Return how many numbers are turned to make some columns of the matrix of a size, one angle after the other."""
    return columns * sum(turning.numbers for turning in turnings(size, layers, kept))
