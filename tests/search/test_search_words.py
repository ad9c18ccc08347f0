"""Words up to symmetry, against classes that are grown by applying every symmetry to every word."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement, pairwise, permutations, product

import pytest

from quanta_compiler.presets.layouts import factorizations
from quanta_compiler.search.chunks import Settings
from quanta_compiler.search.explore import explore
from quanta_compiler.search.saved import costed
from quanta_compiler.search.space import Layout, Limits, Space, families
from quanta_compiler.search.words import Letter, Word, alphabet, has_twin_axes
from quanta_compiler.search.workers import Team, Workers

Gates = tuple[tuple[tuple[int, ...], int], ...]
"""Gates in order, each its axes and its rank."""


def enumerated(labels: tuple[int, ...], gate_axes: tuple[int, ...], ranks: tuple[int, ...], length: int) -> list[Word]:
    letters = alphabet(labels, gate_axes, ranks)
    nodes = [letters.root]
    for _ in range(length):
        grown = (letters.grown(node, letter) for node in nodes for letter in range(len(letters.letters)))
        nodes = [node for node in grown if node is not None]
    return [node.word for node in nodes]


def one_class(gates: Gates, sizes: tuple[int, ...]) -> frozenset[Gates]:
    """Return every way to write a circuit: neighbours without a common axis swapped, axes of equal sizes exchanged."""
    found, waiting = {gates}, [gates]
    exchanges = [
        image
        for image in permutations(range(len(sizes)))
        if all(sizes[old] == sizes[new] for old, new in enumerate(image))
    ]
    while waiting:
        one = waiting.pop()
        others = [
            (*one[:place], one[place + 1], one[place], *one[place + 2 :])
            for place in range(len(one) - 1)
            if not set(one[place][0]) & set(one[place + 1][0])
        ]
        others += [
            tuple((tuple(sorted(image[axis] for axis in axes)), rank) for axes, rank in one) for image in exchanges
        ]
        for other in others:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return frozenset(found)


def has_nested_neighbours(gates: Gates) -> bool:
    pairs = pairwise(gates)
    return any(set(one) <= set(other) or set(other) <= set(one) for (one, _), (other, _) in pairs)


@pytest.mark.parametrize(
    ("sizes", "gate_axes", "ranks", "length"),
    [
        ((2, 2, 2), (2,), (), 4),
        ((3, 2, 2), (2,), (), 5),
        ((4, 3, 2), (1, 2), (), 3),
        ((2, 2, 2, 2), (2,), (), 4),
        ((3, 3, 2, 2), (2,), (), 4),
        ((4, 3, 2, 2), (1, 2, 3), (), 2),
        ((3, 3, 2), (1, 2), (1,), 3),
        ((5, 2, 2, 2, 2), (2,), (), 3),
    ],
)
def test_one_word_of_every_class(
    sizes: tuple[int, ...], gate_axes: tuple[int, ...], ranks: tuple[int, ...], length: int
) -> None:
    labels = tuple(sizes.index(size) for size in sizes)
    sets = [
        (axes, rank)
        for count in gate_axes
        for axes in combinations(range(len(sizes)), count)
        for rank in (0, *ranks)
        if count < len(sizes)
    ]
    classes: set[frozenset[Gates]] = set()
    seen: set[Gates] = set()
    for gates in product(sets, repeat=length):
        if gates not in seen:
            members = one_class(gates, sizes)
            seen |= members
            classes.add(members)
    wanted = {members for members in classes if not any(map(has_nested_neighbours, members))}
    letters = alphabet(labels, gate_axes, ranks).letters
    words = enumerated(labels, gate_axes, ranks, length)
    found = [one_class(tuple((letters[letter].axes, letters[letter].rank) for letter in word), sizes) for word in words]
    assert len(words) == len(wanted)
    assert set(found) == wanted


def test_the_orders_of_one_gate_for_each_pair_of_three_axes() -> None:
    # All sizes differ: 3! orders. All are equal: exchanging axes makes them one.
    assert len(enumerated((0, 1, 2), (2,), (), 3)) == 6 + 3 * 2
    each_once = [word for word in enumerated((0, 0, 0), (2,), (), 3) if len(set(word)) == 3]
    assert each_once == [(0, 1, 2)]


@pytest.mark.parametrize(
    ("width", "count", "found"),
    [
        (16, 2, [(8, 2), (4, 4)]),
        (12, 3, [(3, 2, 2)]),
        (7, 1, [(7,)]),
        (7, 2, []),
        (1 << 24, 1, [(1 << 24,)]),
        (4096, 5, None),
    ],
)
def test_factorizations(width: int, count: int, found: list[tuple[int, ...]] | None) -> None:
    factors = factorizations(width, count)
    if found is None:
        by_hand = {
            tuple(sorted((2**a, 2**b, 2**c, 2**d, 2 ** (12 - a - b - c - d)), reverse=True))
            for a, b, c, d in product(range(1, 9), repeat=4)
            if a + b + c + d < 12
        }
        assert set(factors) == by_hand
        assert len(factors) == len(by_hand)
    else:
        assert list(factors) == found


def test_layouts_of_different_widths() -> None:
    layouts = [layout for family in families(Space(16, 4, axes=(2, 2))) for layout in family.layouts]
    padded = {Layout((8, 2), (8, 2)), Layout((4, 4), (4, 4))}
    assert set(layouts) == padded | {Layout((8, 2), (2, 2))}
    square = Space(16, 4, axes=(2, 2), is_rectangular=False)
    assert {layout for family in families(square) for layout in family.layouts} == padded


def test_a_width_that_factors_badly_is_padded() -> None:
    (family,) = families(Space(31, 31, axes=(2, 2)))
    assert family.layouts == (Layout((16, 2), (16, 2)), Layout((8, 4), (8, 4)))


def test_a_width_has_its_own_layouts_beside_the_padded_ones() -> None:
    layouts = {layout.before for family in families(Space(11008, 11008, axes=(4, 4))) for layout in family.layouts}
    by_hand = {
        tuple(sorted((43 * 2**a, 2**b, 2**c, 2**d), reverse=True))
        for a, b, c, d in product(range(9), repeat=4)
        if a + b + c + d == 8 and min(b, c, d) > 0
    }
    # 11008 = 43 * 2**8 alone, and 11088 = 14 * 11 * 9 * 8, which is what `{auto: 4}` takes.
    divisors = [d for d in range(2, 11089) if 11088 % d == 0]
    padded = {
        (a, b, c, 11088 // (a * b * c))
        for a, b, c in combinations_with_replacement(divisors[::-1], 3)
        if 11088 % (a * b * c) == 0 and 2 <= 11088 // (a * b * c) <= c
    }
    assert (14, 11, 9, 8) in padded
    assert layouts == by_hand | padded


def test_a_gate_that_spares_the_change_of_an_axis_stays_in() -> None:
    # 256 -> 64 by 16x4x4 -> 4x4x4: the first gate shrinks axis 0, so that the second is small.
    gates = tuple(Letter(axes, 0) for axes in ((0,), (0, 1), (1, 2)))
    space = Space(256, 64, axes=(3, 3), gates=(1, 3), gate_axes=(1, 2), limits=Limits(parameters=576))
    layout = Layout((16, 4, 4), (4, 4, 4))
    assert costed(space, layout, gates).figures.parameters == 576
    assert costed(space, layout, gates[1:]).figures.parameters == 1280
    found = explore(Settings(space, ("rank",), alike=1000), Team(None, Workers())).front
    assert (layout, gates) in [(one.layout, one.gates) for one in found]
    # A smaller gate without that axis, and a gate like the other one, are absorbed as ever.
    letters = alphabet((0, 1, 2), (1, 2), (), 0)
    places = {letter.axes: place for place, letter in enumerate(letters.letters)}
    for first, second, stays in (((0,), (0, 1), True), ((1,), (0, 1), False), ((0, 1), (0, 1), False)):
        node = letters.grown(letters.root, places[first])
        assert node is not None
        assert (letters.grown(node, places[second]) is not None) == stays


def test_axes_that_no_gate_takes_are_one_whatever_the_gates() -> None:
    letters = alphabet((0, 1, 2, 3), (2,), ())
    word = (letters.letters.index(Letter((0, 1), 0)),)
    assert has_twin_axes(word, letters.masks, 4, (2,))


def test_axes_that_are_always_taken_together_are_one() -> None:
    letters = alphabet((0, 1, 2), (1, 2), ())
    masks = letters.masks
    word = tuple(letters.letters.index(letter) for letter in (((0, 1), 0), ((2,), 0)))
    assert has_twin_axes(word, masks, 3, (1, 2))
    # Gates on pairs only: the circuit with one axis fewer is not in the space.
    assert not has_twin_axes(word, masks, 3, (2,))
    apart = tuple(letters.letters.index(letter) for letter in (((0, 1), 0), ((1, 2), 0)))
    assert not has_twin_axes(apart, masks, 3, (1, 2))
