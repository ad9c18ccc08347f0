"""`givens`: a product of rotations of planes, each of two indices of the flattened axes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from quanta_compiler.kinds.checks import REPORTED, Problem, describe, integer_problem, refuse, refuse_if
from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Merging, Part, Sides, sides
from quanta_compiler.kinds.limits import GATE_NUMBERS, WIDTH
from quanta_compiler.kinds.looks import ROUNDED, Look, Outline
from quanta_compiler.kinds.made import Made, Memory, Step
from quanta_compiler.kinds.options import Checked, Key, option
from quanta_compiler.text.words import plural

Pairs: TypeAlias = tuple[tuple[int, int], ...]
_MOST_WAYS = 1 << 22
"""With more nonzero entries a matrix counts as full: finding them would take seconds."""


def _check_pairs(value: Any) -> Pairs:
    hint = "such as `[[0, 1], [2, 3]]`; leave it out for all neighbours"
    if not isinstance(value, list | tuple) or not value:
        got = "an empty list" if value in ([], ()) else describe(value)
        refuse([((), f"`pairs` is a list of pairs of indices, got {got}", hint)])
    problems: list[Problem] = []
    for place, pair in enumerate(value):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            got = f"a list of length {len(pair)}" if isinstance(pair, list | tuple) else describe(pair)
            problems.append(((place,), f"an entry of `pairs` is two indices, got {got}", hint))
            continue
        found = ((side, integer_problem(index, "an index of `pairs`", 0, WIDTH - 1)) for side, index in enumerate(pair))
        wrong: list[Problem] = [((place, side), problem, None) for side, problem in found if problem is not None]
        if not wrong and pair[0] == pair[1]:
            wrong.append(((place,), f"a pair of `pairs` is index {pair[0]} twice", "a plane has two different indices"))
        problems += wrong
        if len(problems) >= REPORTED:
            break
    refuse_if(problems)
    return tuple((int(i), int(j)) for i, j in value)


_PAIRS = Key(
    Checked(
        _check_pairs,
        {
            "type": "array",
            "items": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": WIDTH - 1},
                "minItems": 2,
                "maxItems": 2,
            },
            "minItems": 1,
        },
    ),
    "The pairs of indices of the flattened axes that are turned, in their order; by default all neighbours.",
    words=lambda pairs: f" of {plural(len(pairs), 'pair')}",
    note=lambda pairs: plural(len(pairs), "pair"),
)


@dataclass(frozen=True, slots=True)
class Givens(Kind):
    """Pair after pair, x_i and x_j become cos(t/2) x_i - sin(t/2) x_j and sin(t/2) x_i + cos(t/2) x_j."""

    pairs: tuple[tuple[int, int], ...] | None = option(_PAIRS, None)

    name = "givens"
    meaning = "A gate whose matrix is a product of rotations of planes by trained angles."
    form = Form.FUNCTION
    schemes = ANGLES
    merging = Merging.BLOCKS
    smaller = "pauli"
    look = Look(
        *("#e4e6f7", "#5560b0", "#242848", "#a3acec"),
        outline=Outline.SOFT,
        frame=ROUNDED,
        legend="givens: rotations of planes, pair by pair",
    )

    def _turned(self, size: int) -> Pairs:
        """Return the pairs: all neighbours in two rounds where the file gives none."""
        if self.pairs is not None:
            return self.pairs
        return tuple((index, index + 1) for start in (0, 1) for index in range(start, size - 1, 2))

    def stored(self, rows: int, columns: int) -> tuple[Part, ...]:
        """Return an angle for every pair."""
        numbers = max(0, rows - 1) if self.pairs is None else len(self.pairs)
        return (Part("", (numbers,), rows, columns),)

    def made(self, rows: int, columns: int) -> Made:
        """Return the function, which turns in one step what stands in a round."""
        found = _rounds(self._turned(rows))
        steps = plane_steps(rows, rows, [(len(turned), not isinstance(turned, range)) for turned in found])
        return Made("givens", (rows, found), tuple(steps))

    def ways(self, rows: int, columns: int) -> list[list[int]] | None:
        """Return where a column goes: a pair goes where either of its indices does."""
        reaching = [{index} for index in range(rows)]
        steps = rows
        for i, j in self._turned(rows):
            both = reaching[i] | reaching[j]
            reaching[i] = reaching[j] = both
            steps += len(both)
            if steps > _MOST_WAYS:
                return None
        reached: list[list[int]] = [[] for _ in range(columns)]
        for row, columns_of_row in enumerate(reaching):
            for column in columns_of_row:
                reached[column].append(row)
        return None if all(len(found) == rows for found in reached) else reached

    def check(self, gate: Sides, label: str) -> Iterator[Complaint]:
        """Ask for a square matrix that is not too large to be made, and for indices that it has."""
        rows, columns = sides(gate)
        if rows != columns:
            message = f"{label} is a `givens` gate, whose matrix is square, and its axes need {rows} x {columns}"
            yield Complaint(("to",), message, "leave `to` out, or use `kind: orthogonal`, which can be rectangular")
        numbers = rows * rows * math.prod(axis.size for axis in gate.per)
        if numbers > GATE_NUMBERS:
            message = f"the matrix of {label} is made in full, {numbers} numbers; the limit is {GATE_NUMBERS}"
            yield Complaint(("axes",), message, "act on fewer axes, or use `kind: pauli`")
        for place, pair in enumerate(self.pairs or ()):
            if max(pair) >= rows:
                message = f"pair {list(pair)} of {label} is out of range: its axes have {rows} indices, from 0"
                hint = "the indices are those of the axes flattened, the last axis the fastest"
                yield Complaint(("pairs", place), message, hint)


Rows = range | tuple[int, ...]
"""The indices of a round's pairs, one pair after the other; a range where they stand together."""


@lru_cache(maxsize=64)
def _rounds(pairs: Pairs) -> tuple[Rows, ...]:
    """Return pairs that follow each other and have no index in common as one round."""
    rounds: list[list[int]] = []
    taken: set[int] = set()
    for pair in pairs:
        if not rounds or not taken.isdisjoint(pair):
            rounds.append([])
            taken = set()
        rounds[-1] += pair
        taken.update(pair)
    return tuple(map(_together, rounds))


def _together(rows: Sequence[int]) -> Rows:
    run = range(rows[0], rows[0] + len(rows))
    return run if list(run) == rows else tuple(rows)


def plane_steps(size: int, columns: int, rounds: Sequence[tuple[int, bool]]) -> Iterator[Step]:
    """Yield the steps of the functions in rotation_functions.py that turn planes.

    A round is how many rows it turns, and whether they stand apart.
    """
    angles = sum(rows for rows, _ in rounds) // 2
    if not angles:
        yield Step("place", (size, columns), 0, takes=())
        return
    brief = [Memory(angles, saved=place == 0, lasts=0) for place in range(4)]
    # The first round turns an identity, which needs no gradient.
    turns = Memory(4 * angles, saved=len(rounds) > 1)
    yield Step("elementwise", (angles, 2, 2), 4 * angles, takes=(*brief, turns))
    whole = size * columns
    yield Step("place", (size, columns), 0, takes=(_matrix(whole, rounds, 0),))
    for place, (rows, is_apart) in enumerate(rounds):
        numbers = rows * columns
        taken = [Memory(numbers, saved=is_apart, lasts=1)]
        if is_apart:
            # The rows are copied, by indices of 8 bytes.
            taken += [Memory(2 * rows, saved=True, lasts=2, is_shared=True), Memory(numbers, saved=True, lasts=0)]
        yield Step("matmul", (rows, columns), 4 * numbers, takes=tuple(taken), is_right_fixed=place == 0)
        made = (_matrix(whole, rounds, place + 1),) if place + 1 < len(rounds) else ()
        yield Step("place", (size, columns), 0, takes=made)


def _matrix(numbers: int, rounds: Sequence[tuple[int, bool]], following: int) -> Memory:
    """Return a matrix that a round reads: of one that stands together it is kept, of another what is copied of it."""
    saved = following < len(rounds) and not rounds[following][1]
    return Memory(numbers, saved, lasts=2)
