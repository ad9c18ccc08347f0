"""What is searched: the layouts of a width, the gates that may act on them, and the limits that all must meet."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from quanta_compiler.presets.layouts import auto_layout, factorizations


@dataclass(frozen=True, slots=True)
class Limits:
    """What a layout may cost at most and must reach at least; None: whatever it is."""

    parameters: int | None = None
    flops_per_token: int | None = None
    saved_bytes_per_token: int | None = None
    rank: int | None = None
    """The lower bound of the rank is at least this."""
    mixing: float | None = None
    """The mixing (see `Figures`) is at least this."""


@dataclass(frozen=True, slots=True)
class Space:
    """All circuits of some numbers of axes and gates for a layer `in_features -> out_features`."""

    in_features: int
    out_features: int
    axes: tuple[int, int] = (2, 5)
    """The fewest and the most."""
    gates: tuple[int, int] = (1, 10)
    """The fewest and the most."""
    gate_axes: tuple[int, ...] = (2,)
    """On how many axes a gate may act."""
    ranks: tuple[int, ...] = ()
    """Beside dense gates, those that are a product B A of one of these ranks."""
    is_rectangular: bool = True
    """Where the widths differ, also circuits in which one axis changes its size."""
    allows_disconnected: bool = False
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """The sizes of the axes before the first gate and after the last, the largest first; both as long."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def changed_axis(self) -> int | None:
        """Return the one axis that has another size in the end; None where all stay as they are."""
        pairs = zip(self.before, self.after, strict=True)
        return next((axis for axis, (old, new) in enumerate(pairs) if old != new), None)

    def __str__(self) -> str:
        before, after = ("x".join(map(str, sizes)) for sizes in (self.before, self.after))
        return before if before == after else f"{before}->{after}"


@dataclass(frozen=True, slots=True)
class Family:
    """Layouts with the same symmetry: axes of equal sizes stand at the same places, so that all have the same words."""

    labels: tuple[int, ...]
    """A number for each axis; axes of equal sizes have the same."""
    layouts: tuple[Layout, ...]
    changed: int | None = None
    """The axis that has another size in the end, the same for all."""


@lru_cache(maxsize=8)
def families(space: Space) -> tuple[Family, ...]:
    """Return all layouts of a space by their symmetry, few axes first; permuted layouts are one."""
    found: dict[tuple[tuple[int, ...], int], list[Layout]] = {}
    for axes in range(space.axes[0], space.axes[1] + 1):
        for layout in _layouts(space, axes):
            pairs = list(zip(layout.before, layout.after, strict=True))
            changed = -1 if layout.changed_axis is None else layout.changed_axis
            found.setdefault((tuple(map(pairs.index, pairs)), changed), []).append(layout)
    ordered = sorted(found, key=lambda key: (len(key[0]), *key))
    return tuple(
        Family(labels, tuple(sorted(found[labels, place], reverse=True)), None if place < 0 else place)
        for labels, place in ordered
    )


def _layouts(space: Space, axes: int) -> Iterator[Layout]:
    """Yield the layouts of one number of axes: of the larger width, as it is and padded, and rectangular ones."""
    wide = max(space.in_features, space.out_features)
    padded = math.prod(auto_layout(wide, axes))
    # Of a width that splits unevenly the padded one has the balanced layouts; its own need no padding.
    for width in sorted({wide, padded if padded < 2 * wide else wide}):
        for sizes in factorizations(width, axes):
            yield Layout(sizes, sizes)
    if not space.is_rectangular or space.in_features == space.out_features:
        return
    for sizes in factorizations(space.in_features, axes):
        for size in sorted(set(sizes)):
            new, left = divmod(size * space.out_features, space.in_features)
            if left or new < 2:
                continue
            place = sizes.index(size)
            pairs = [(old, new if axis == place else old) for axis, old in enumerate(sizes)]
            pairs.sort(reverse=True)
            yield Layout(tuple(old for old, _ in pairs), tuple(new for _, new in pairs))
