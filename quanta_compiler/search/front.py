"""The Pareto front: the layouts that no other one beats in every objective."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from quanta_compiler.search.costs import Figures, OrderFigures
from quanta_compiler.search.space import Layout
from quanta_compiler.search.words import Letter

_MANY_DOMINATED = 1_000_000
"""At most this many points that are dominated are remembered; most layouts of a search have those of another."""

Point = tuple[float, ...]
"""The objectives of a layout, each with its sign such that less is better."""


class Objective(NamedTuple):
    """A figure of which less or more is better."""

    key: str
    """The attribute of `Figures`, or of `OrderFigures`."""
    more_is_better: bool = False


OBJECTIVES = {
    "parameters": Objective("parameters"),
    "flops": Objective("flops_per_token"),
    "memory": Objective("saved_bytes_per_token"),
    "rank": Objective("rank_lower", more_is_better=True),
    "rank-upper": Objective("rank_upper", more_is_better=True),
    "mixing": Objective("mixing", more_is_better=True),
    "freedom": Objective("freedom", more_is_better=True),
    "operator": Objective("operator_flops"),
    "full": Objective("gates_to_full"),
    "mix": Objective("gates_to_mix"),
}
_NEVER = 10**6
"""Stands for a number of gates that does not exist."""


class Candidate(NamedTuple):
    """One circuit of a search with its figures; `gates` in the order in which they are applied."""

    layout: Layout
    gates: tuple[Letter, ...]
    figures: Figures
    order: OrderFigures

    @property
    def preference(self) -> tuple[Any, ...]:
        """Return what decides between layouts of equal objectives: mixed soon, merged cheaply, then by its own text."""
        mix = self.order.gates_to_mix
        return (_NEVER if mix is None else mix, self.order.operator_flops, len(self.gates), self.layout, self.gates)


class Front:
    """The best layouts so far; the same ones in whatever order layouts and other fronts are added.

    Of layouts with the same objectives the `alike` preferred ones are kept.
    """

    def __init__(self, objectives: Sequence[str], alike: int = 1) -> None:
        chosen = [OBJECTIVES[name] for name in objectives]
        self._figures = [one for one in chosen if one.key in Figures._fields]
        self._orders = [one for one in chosen if one.key in OrderFigures._fields]
        self.needs_order = bool(self._orders)
        self._alike = alike
        self._kept: dict[Point, list[Candidate]] = {}
        self._dominated: set[Point] = set()

    def __iter__(self) -> Iterator[Candidate]:
        """Yield the front, few parameters first."""
        for point in sorted(self._kept, key=lambda point: (self._kept[point][0].figures, point)):
            yield from self._kept[point]

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def point(self, figures: Figures, order: OrderFigures | None) -> Point:
        """Return the objectives of a layout; `order` is looked at only where `needs_order`."""
        found = [-getattr(figures, key) if more else getattr(figures, key) for key, more in self._figures]
        for key, more in self._orders:
            value = getattr(order, key)
            value = _NEVER if value is None else value
            found.append(-value if more else value)
        return tuple(found)

    def admits(self, point: Point) -> bool:
        """Say whether a layout with these objectives would stand on the front, perhaps beside others that have them."""
        if point in self._kept:
            return True
        if point in self._dominated:
            return False
        for other in self._kept:
            if all(theirs <= ours for theirs, ours in zip(other, point, strict=True)):
                if len(self._dominated) < _MANY_DOMINATED:
                    self._dominated.add(point)
                return False
        return True

    def add(self, candidate: Candidate) -> None:
        """Take a layout in, and drop those that it beats."""
        point = self.point(candidate.figures, candidate.order)
        if not self.admits(point):
            return
        same = self._kept.get(point)
        if same is None:
            for other in [old for old in self._kept if all(a <= b for a, b in zip(point, old, strict=True))]:
                del self._kept[other]
            self._kept[point] = [candidate]
            return
        if candidate not in same:
            same.append(candidate)
            same.sort(key=lambda one: one.preference)
            del same[self._alike :]

    def merge(self, candidates: Iterable[Candidate]) -> None:
        """Take all layouts of another front in."""
        for candidate in candidates:
            self.add(candidate)
