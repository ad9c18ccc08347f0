"""Orders of gates up to symmetry: words over the gates that a layout can have, one of each class.

Two words are one circuit where they differ only in this:

- neighbouring gates without a common axis have changed places;
- axes of equal sizes have been exchanged (that renames coordinates).

Of a class the lexicographically smallest word is kept. Left out are words in which a gate acts on some of the axes of
another one that it can be brought next to: the two are one matrix, and the circuit without the smaller one has fewer
numbers and the same operators. That is not so where the smaller gate has the axis that changes its size: without it the
larger one would have to change the axis, at the cost of more numbers. Such words stay in. Both properties hold for
every prefix of a word that has them, so words are grown gate by gate and dropped as soon as they fail.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations, permutations, product
from typing import NamedTuple

Word = tuple[int, ...]
"""Gates in the order in which they are applied, as positions in the alphabet."""


class Letter(NamedTuple):
    """A gate: the axes on which it acts, ascending, and its rank; 0 for a dense matrix."""

    axes: tuple[int, ...]
    rank: int


class Node(NamedTuple):
    """A word that is the smallest of its class, and the smallest orders of its images under every symmetry."""

    word: Word
    images: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The gates that layouts of one family can have."""

    letters: tuple[Letter, ...]
    masks: tuple[int, ...]
    """The axes of each letter as bits."""
    images: tuple[tuple[int, ...], ...]
    """What each symmetry but the identity makes of each letter."""
    changed: int = 0
    """The axis that changes its size as a bit; 0 where none does."""

    @property
    def root(self) -> Node:
        """Return the empty word."""
        return Node((), ((),) * len(self.images))

    def grown(self, node: Node, letter: int) -> Node | None:
        """Return the word with one more gate; None where it is not the smallest of its class, or two gates are one."""
        word = _appended(node.word, letter, self.masks)
        if word[-1] != letter or _absorbs(node.word, letter, self.masks, self.changed):
            return None
        images = []
        for form, image in zip(node.images, self.images, strict=True):
            grown = _appended(form, image[letter], self.masks)
            if grown < word:
                return None
            images.append(grown)
        return Node(word, tuple(images))


@lru_cache(maxsize=64)
def alphabet(
    labels: tuple[int, ...], gate_axes: tuple[int, ...], ranks: tuple[int, ...], changed: int | None = None
) -> Alphabet:
    """Return the gates on some numbers of axes, for axes of which those with equal labels may be exchanged.

    `changed` is the axis that has another size in the end.
    A gate on all of several axes is one matrix whatever the layout is: only a single axis has it.
    """
    axes = range(len(labels))
    sets = [
        chosen
        for count in sorted(set(gate_axes))
        for chosen in combinations(axes, count)
        if count < len(labels) or count == 1
    ]
    letters = tuple(Letter(chosen, rank) for chosen in sets for rank in (0, *sorted(set(ranks))))
    places = {letter: place for place, letter in enumerate(letters)}
    images = tuple(
        tuple(places[Letter(tuple(sorted(moved[axis] for axis in axes)), rank)] for axes, rank in letters)
        for moved in _symmetries(labels)
    )
    masks = tuple(sum(1 << axis for axis in letter.axes) for letter in letters)
    return Alphabet(letters, masks, images, 0 if changed is None else 1 << changed)


def _symmetries(labels: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield every exchange of axes with equal labels but the identity: axis -> axis."""
    classes = [[axis for axis, label in enumerate(labels) if label == one] for one in sorted(set(labels))]
    for images in product(*(permutations(members) for members in classes)):
        moved = dict(zip(chain(*classes), chain(*images), strict=True))
        if any(old != new for old, new in moved.items()):
            yield tuple(moved[axis] for axis in range(len(labels)))


def _appended(form: Word, letter: int, masks: Sequence[int]) -> Word:
    """Return the smallest order of a word and one more gate, `form` being the smallest order of the word.

    The gate moves forward past those that it commutes with, to just before the first that is larger.
    """
    mask = masks[letter]
    place = at = len(form)
    while at and not masks[form[at - 1]] & mask:
        at -= 1
        if form[at] > letter:
            place = at
    return (*form[:place], letter, *form[place:])


def _absorbs(word: Word, letter: int, masks: Sequence[int], changed: int) -> bool:
    """Say whether a gate behind a word can be brought next to one that has all its axes, or only some of them.

    Not counted is a smaller gate with the axis that changes its size.
    """
    mask, between = masks[letter], 0
    for earlier in reversed(word):
        other = masks[earlier]
        if other & between:
            # A gate stands between the two that commutes with neither.
            between |= other
        elif other & mask:
            if other & mask in (other, mask) and (other == mask or not other & mask & changed):
                return True
            between |= other
    return False


def has_twin_axes(word: Word, masks: Sequence[int], axes: int, gate_axes: Sequence[int]) -> bool:
    """Say whether two axes are taken by the same gates, and one axis in their place gives gates of the space, too."""
    held = [0] * axes
    for place, letter in enumerate(word):
        for axis in range(axes):
            if masks[letter] >> axis & 1:
                held[axis] |= 1 << place
    # Axes that no gate takes are twins whatever gates there may be.
    if len(set(held)) == axes or not (0 in held or any(count - 1 in gate_axes for count in gate_axes)):
        return False
    twins = {mask for axis, mask in enumerate(held) if mask in held[:axis]}
    counts = [masks[letter].bit_count() for letter in word]
    return any(
        all(count - (twin >> place & 1) in gate_axes for place, count in enumerate(counts)) for twin in sorted(twins)
    )
