"""Words up to symmetry, against classes that are grown by applying every symmetry to every word."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations, product

import pytest

from quanta_compiler.search.space import Layout, Space, factorizations, families
from quanta_compiler.search.words import Word, alphabet, has_twin_axes

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


def test_axes_that_are_always_taken_together_are_one() -> None:
    letters = alphabet((0, 1, 2), (1, 2), ())
    masks = letters.masks
    word = tuple(letters.letters.index(letter) for letter in (((0, 1), 0), ((2,), 0)))
    assert has_twin_axes(word, masks, 3, (1, 2))
    # Gates on pairs only: the circuit with one axis fewer is not in the space.
    assert not has_twin_axes(word, masks, 3, (2,))
    apart = tuple(letters.letters.index(letter) for letter in (((0, 1), 0), ((1, 2), 0)))
    assert not has_twin_axes(apart, masks, 3, (1, 2))
