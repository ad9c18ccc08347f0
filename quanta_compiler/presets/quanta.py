"""`quanta`: a gate for every pair of axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.presets.family import FACTORS, Expansion, Family
from quanta_compiler.presets.layouts import Layout, auto_layout, even_layouts


@dataclass(frozen=True, slots=True)
class Quanta(Family):
    """QuanTA (Chen et al. 2024)."""

    layout: Layout = field(default=Layout(auto=4), metadata=FACTORS)

    name = "quanta"
    meaning = "QuanTA: a gate on every pair of axes"
    operator = "T = the product of the gates, pair by pair"
    parameters = "sum over the pairs (j, k) of (n_j n_k)^2"
    main = "layout"

    @classmethod
    def sized(cls, in_features: int, out_features: int) -> dict[str, list[dict[str, Any]]]:
        """Return circuits of three to five axes, and some of orthogonal gates.

        Where an axis can make the difference between the two widths its gates are rectangular; otherwise the circuit is
        as wide as the larger of them.
        """
        circuits = {
            f"{axes} axes": [_circuit(cls.name, *one, {}) for one in _layouts(in_features, out_features, axes)]
            for axes in (3, 4, 5)
        }
        layouts = _layouts(in_features, out_features, 4)
        return {**circuits, "orthogonal": [_circuit(cls.name, *one, {"kind": "orthogonal"}) for one in layouts]}

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = T^(last) ... T^(1), as wide as the larger of the two widths."""
        sizes = self.layout.sizes_for(max(in_features, out_features))
        circuit = {"layout": list(sizes), "gates": ["all_pairs"]}
        return Expansion(circuit, chosen_width=math.prod(sizes) if self.layout.auto is not None else None)


def _circuit(name: str, sizes: Sequence[int], to: dict[int, int], gate: dict[str, Any]) -> dict[str, Any]:
    """Return a circuit as a file writes it; dense gates begin orthogonal, which keeps the scale."""
    options = {**gate, **({"to": to} if to else {})}
    return {
        "version": 1,
        "name": "-".join([name, *gate.values(), *map(str, sizes), *(f"to-{size}" for size in to.values())]),
        "layout": list(sizes),
        "gates": [{"pattern": "all_pairs", **options} if options else "all_pairs"],
        **({} if gate else {"init": "orthogonal"}),
    }


def _layouts(in_features: int, out_features: int, axes: int) -> list[tuple[tuple[int, ...], dict[int, int]]]:
    """Return layouts, each with what axis becomes of what size."""
    if in_features != out_features:
        found = [(sizes, _resized(sizes, in_features, out_features)) for sizes in even_layouts(in_features, axes)]
        rectangular = [(sizes, to) for sizes, to in found if to]
        if rectangular:
            return rectangular
    width = max(in_features, out_features)
    return [(sizes, {}) for sizes in {auto_layout(width, axes): None, **dict.fromkeys(even_layouts(width, axes))}]


def _resized(sizes: Sequence[int], in_features: int, out_features: int) -> dict[int, int]:
    """Return the first axis that can make the difference between the widths, and its new size."""
    for axis, size in enumerate(sizes):
        new, rest = divmod(size * out_features, in_features)
        if not rest and new >= 2:
            return {axis: new}
    return {}
