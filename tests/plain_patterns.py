"""The axes of a circuit file and its patterns written out, by the words of the interface: nothing of the compiler."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Ref = int | str


class Axes:
    """The axes in the order of the flattened state; positions are those of the input layout."""

    def __init__(self, layout: Any) -> None:
        if isinstance(layout, str):
            layout = [int(word) for word in layout.replace("-", "x").split("x")]
        if not isinstance(layout, dict):
            sizes = [layout] if isinstance(layout, int) else list(layout)
            layout = {str(place): size for place, size in enumerate(sizes)}
        self.names = list(layout)
        self.present: dict[str, int] = dict(layout)

    def name(self, ref: Ref) -> str:
        return self.names[ref] if isinstance(ref, int) else ref

    def size(self, axes: list[str]) -> int:
        return math.prod(self.present[axis] for axis in axes)

    def per(self, gate: Mapping[str, Any], axes: list[str]) -> list[str]:
        """Return the names of a gate's `per`."""
        per = gate.get("per", [])
        return [axis for axis in self.present if axis not in axes] if per == "rest" else [self.name(ref) for ref in per]

    def target(self, gate: Mapping[str, Any], axes: list[str]) -> dict[str, int]:
        """Return what becomes of a gate's axes."""
        to = gate.get("to")
        if to is None:
            return {axis: self.present[axis] for axis in axes}
        return dict(zip(axes, to, strict=True)) if isinstance(to, list) else {self.name(ref): to[ref] for ref in to}

    def replace(self, axes: list[str], to: dict[str, int]) -> None:
        """An axis that survives keeps its place; new ones come last."""
        kept = {name: to.get(name, size) for name, size in self.present.items() if name not in axes or name in to}
        self.present = {**kept, **{name: size for name, size in to.items() if name not in kept}}

    def apply(self, gate: Mapping[str, Any]) -> None:
        axes = [self.name(ref) for ref in gate["axes"]]
        self.replace(axes, self.target(gate, axes))


def written_out(file: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file with its patterns as single gates, and short gates as mappings."""
    axes = Axes(file["layout"])
    gates: list[dict[str, Any]] = []
    for item in file["gates"]:
        for gate in pattern_gates(item, axes) if isinstance(item, str) or "pattern" in item else [item]:
            gates.append({"axes": gate} if isinstance(gate, list) else dict(gate))
            axes.apply(gates[-1])
    return {**file, "gates": gates}


def _pairs(n: int) -> Iterator[tuple[int, ...]]:
    return ((other, first) for first in reversed(range(n)) for other in reversed(range(first)))


def _neighbours(n: int, start: int = 0, step: int = 1) -> list[tuple[int, ...]]:
    return [(place, place + 1) for place in range(start, n - 1, step)]


RULES: dict[str, Callable[[int], Iterator[tuple[int, ...]] | list[tuple[int, ...]]]] = {
    "all_pairs": _pairs,
    "each": lambda n: [(place,) for place in range(n)],
    "chain": _neighbours,
    "ring": lambda n: _neighbours(n) + [(0, n - 1)] * (n > 2),
    "brick": lambda n: _neighbours(n, 0, 2) + _neighbours(n, 1, 2),
}
"""The places among n axes of each gate of a pattern."""


def _two_design(n: int, layers: int) -> list[tuple[int, ...]]:
    """Return the places of RY, one axis each, and of CZ, two."""
    columns = [_neighbours(n, start, 2) for start in (0, 1)] * layers
    turned = [[*pairs, *((place,) for place in sorted(itertools.chain(*pairs)))] for pairs in columns]
    return [(place,) for place in range(n)] + list(itertools.chain(*turned))


def pattern_gates(item: str | Mapping[str, Any], axes: Axes) -> list[dict[str, Any]]:
    """Return the gates of a pattern: an axis shrinks at its first gate and grows at its last."""
    item = {"pattern": item} if isinstance(item, str) else item
    over = [axes.name(ref) for ref in item.get("axes", range(len(axes.names)))]
    over = [name for name in axes.names if name in over]
    is_design = item["pattern"] == "two_design"
    rule = _two_design(len(over), item.get("layers", 1)) if is_design else list(RULES[item["pattern"]](len(over)))
    own = {key: item[key] for key in item if key not in ("pattern", "axes", "repeat", "to", *["layers"] * is_design)}
    gates = [{"axes": [over[place] for place in places], **own} for places in rule * item.get("repeat", 1)]
    if is_design:
        for gate in gates:
            is_bit = [axes.present[name] for name in gate["axes"]] == [2]
            gate["kind"] = "cz" if len(gate["axes"]) == 2 else "ry" if is_bit else "orthogonal"
            if gate["kind"] == "cz":
                gate.pop("init", None)
                gate.pop("frozen", None)
    sizes, when = dict(axes.present), {}
    for ref, size in item.get("to", {}).items():
        touching = [place for place, gate in enumerate(gates) if axes.name(ref) in gate["axes"]]
        if touching:
            when[axes.name(ref)] = (touching[0] if size < sizes[axes.name(ref)] else touching[-1], size)
    for place, gate in enumerate(gates):
        changed = {name: size for name, (at, size) in when.items() if at == place}
        sizes.update(changed)
        if changed:
            gate["to"] = [sizes[name] for name in gate["axes"]]
        gate["axes"] = [_as_written(axes, name) for name in gate["axes"]]
    return gates


def _as_written(axes: Axes, name: str) -> Ref:
    """Return an axis as a file refers to it: by position where positions are all that it has."""
    return int(name) if name.isdigit() else name
