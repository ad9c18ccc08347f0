"""A part of a search that one process costs by itself: it needs the space and its own number, and returns a front."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.search.costs import Figures, LayoutCosts
from quanta_compiler.search.front import Candidate, Front
from quanta_compiler.search.space import Family, Limits, Space, families
from quanta_compiler.search.words import Alphabet, Node, Word, alphabet, has_twin_axes

_IDLE_DESCENTS = 1_000
"""A sampled chunk ends after this many walks in a row that found nothing within the limits."""
_DEALT_GATES = 2
"""The words of a length are dealt out to chunks by their first gates."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides which layouts a search finds: not how it is run."""

    space: Space
    objectives: tuple[str, ...]
    alike: int = 1
    candidates: int = 200_000
    """About how many layouts are costed at most."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """All words of one length of a family, or part of them; or (`family` None) words drawn at random."""

    gates: int
    """The length of the words; of drawn ones, beyond which they are costed."""
    family: int | None
    part: int = 0
    parts: int = 1
    expected: int = 0
    """About how many layouts it costs; of a drawn chunk, how many at least."""

    @property
    def name(self) -> str:
        """Return what the journal calls it."""
        return (
            f"{'drawn' if self.family is None else self.family}/{self.gates}/{self.part}of{self.parts}/{self.expected}"
        )


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a chunk has found."""

    name: str
    seen: int
    """Layouts costed."""
    met: int
    """Those of them that meet all limits."""
    front: tuple[Candidate, ...]
    estimate: tuple[float, ...] = ()
    """Of a drawn chunk: how many layouts of each number of gates there are, were all of the space as this sample."""


class Alive(NamedTuple):
    """A layout for which a word is still within the limits, and the least that the word costs on it."""

    costs: LayoutCosts
    parameters: int
    flops: int
    saved: int


@dataclass(frozen=True)
class Branch:
    """A family made ready: its gates, and the closed formulas of its layouts."""

    family: Family
    alphabet: Alphabet
    roots: tuple[Alive, ...]
    narrower: frozenset[tuple[bool, int]]
    """The widths of layouts with one axis fewer."""


@lru_cache(maxsize=4)
def branches(space: Space) -> tuple[Branch, ...]:
    """Return all families of a space that can have a gate."""
    found = []
    widths: dict[int, set[tuple[bool, int]]] = {}
    for family in families(space):
        letters = alphabet(family.labels, space.gate_axes, space.ranks, family.changed)
        costs = [
            LayoutCosts(layout, letters.letters, space.in_features, space.out_features) for layout in family.layouts
        ]
        axes = len(family.labels)
        widths.setdefault(axes, set()).update(cost.width_key for cost in costs)
        if letters.letters:
            narrower = frozenset(widths.get(axes - 1, ()))
            found.append(Branch(family, letters, tuple(Alive(cost, 0, 0, 0) for cost in costs), narrower))
    return tuple(found)


def run_chunk(settings: Settings, chunk: Chunk) -> ChunkResult:
    """Cost the layouts of a chunk; the result depends on nothing but the two arguments."""
    return _draw(settings, chunk) if chunk.family is None else _enumerate(settings, chunk)


class _Collector:
    """Costs layouts and keeps the front of those that meet the limits."""

    def __init__(self, settings: Settings) -> None:
        self.space = settings.space
        self.front = Front(settings.objectives, settings.alike)
        self.seen = 0
        self.met = 0

    def cost(self, branch: Branch, word: Word, alive: Sequence[Alive]) -> None:
        """Cost one word on all layouts for which it is within the limits so far."""
        letters = branch.alphabet
        self.seen += len(alive)
        axes = len(branch.family.labels)
        touched = 0
        for letter in word:
            touched |= letters.masks[letter]
        is_connected = touched == (1 << axes) - 1
        if len(word) < self.space.gates[0] or not (is_connected or self.space.allows_disconnected):
            return
        if has_twin_axes(word, letters.masks, axes, self.space.gate_axes):
            # With one axis fewer the same circuit is in the space already.
            alive = [one for one in alive if one.costs.width_key not in branch.narrower]
        for one in alive:
            figures = one.costs.figures(word)
            if not _meets(figures, self.space.limits):
                continue
            if one.costs.changed is not None and one.costs.changing_gate(word) == len(word):
                continue
            self.met += 1
            order = one.costs.order_figures(word) if self.front.needs_order else None
            if self.front.admits(self.front.point(figures, order)):
                gates = tuple(letters.letters[letter] for letter in word)
                order = order or one.costs.order_figures(word)
                self.front.add(Candidate(one.costs.layout, gates, figures, order))


def _enumerate(settings: Settings, chunk: Chunk) -> ChunkResult:
    """Cost every word of one length whose beginning falls to this part."""
    assert chunk.family is not None
    branch = branches(settings.space)[chunk.family]
    collector = _Collector(settings)
    dealt = min(_DEALT_GATES, chunk.gates)
    beginnings = 0
    # A stack, the first child on top: recursion would pass every word up through as many generators as it has gates.
    waiting = [(branch.alphabet.root, list(branch.roots))]
    while waiting:
        node, alive = waiting.pop()
        if len(node.word) == dealt:
            beginnings += 1
            if beginnings % chunk.parts != chunk.part:
                continue
        if len(node.word) == chunk.gates:
            collector.cost(branch, node.word, alive)
            continue
        waiting += reversed(_children(branch, node, alive, settings.space.limits))
    return ChunkResult(chunk.name, collector.seen, collector.met, tuple(collector.front))


def _children(branch: Branch, node: Node, alive: Sequence[Alive], limits: Limits) -> list[tuple[Node, list[Alive]]]:
    found = []
    for letter in range(len(branch.alphabet.letters)):
        left = _within(alive, letter, limits)
        if left:
            child = branch.alphabet.grown(node, letter)
            if child is not None:
                found.append((child, left))
    return found


def _within(alive: Sequence[Alive], letter: int, limits: Limits) -> list[Alive]:
    left = []
    for one in alive:
        floor = one.costs.floors[letter]
        if floor is None:
            continue
        parameters, flops, saved = one.parameters + floor[0], one.flops + floor[1], one.saved + floor[2]
        if (
            (limits.parameters is None or parameters <= limits.parameters)
            and (limits.flops_per_token is None or flops <= limits.flops_per_token)
            and (limits.saved_bytes_per_token is None or ELEMENT_BYTES * saved <= limits.saved_bytes_per_token)
        ):
            left.append(Alive(one.costs, parameters, flops, saved))
    return left


def _draw(settings: Settings, chunk: Chunk) -> ChunkResult:
    """Cost words that are met on random walks, each gate drawn among those that may follow.

    All that could follow is costed, not only what is drawn. The number of choices along a walk estimates how many words
    there are (Knuth, Mathematics of Computation 29, 1975): a word is met with the inverse of their product.
    """
    space = settings.space
    known = branches(space)
    generator = random.Random(f"{settings.seed}/{chunk.part}")
    collector = _Collector(settings)
    met = [0.0] * (space.gates[1] + 1)
    walks = idle = 0
    while collector.seen < chunk.expected and idle < _IDLE_DESCENTS:
        walks += 1
        seen = collector.seen
        branch = known[generator.randrange(len(known))]
        node, alive = branch.alphabet.root, list(branch.roots)
        choices = float(len(known))
        for gates in range(1, space.gates[1] + 1):
            children = _children(branch, node, alive, space.limits)
            if not children:
                break
            met[gates] += choices * sum(len(left) for _, left in children)
            if gates > chunk.gates:
                for child, left in children:
                    collector.cost(branch, child.word, left)
            node, alive = children[generator.randrange(len(children))]
            choices *= len(children)
        idle = 0 if collector.seen > seen else idle + 1
    estimate = tuple(total / walks for total in met)
    return ChunkResult(chunk.name, collector.seen, collector.met, tuple(collector.front), estimate)


def _meets(figures: Figures, limits: Limits) -> bool:
    return (
        (limits.parameters is None or figures.parameters <= limits.parameters)
        and (limits.flops_per_token is None or figures.flops_per_token <= limits.flops_per_token)
        and (limits.saved_bytes_per_token is None or figures.saved_bytes_per_token <= limits.saved_bytes_per_token)
        and (limits.rank is None or figures.rank_lower >= limits.rank)
        and (limits.mixing is None or figures.mixing >= limits.mixing)
    )
