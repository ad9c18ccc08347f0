"""`quanta`: a gate for every pair of axes."""

import math
from dataclasses import dataclass, field

from quanta_compiler.presets.family import FACTORS, Expansion, Family
from quanta_compiler.presets.layouts import Layout


@dataclass(frozen=True, slots=True)
class Quanta(Family):
    """QuanTA (Chen et al. 2024)."""

    layout: Layout = field(default=Layout(auto=4), metadata=FACTORS)

    name = "quanta"
    meaning = "QuanTA: a gate on every pair of axes"
    operator = "T = the product of the gates, pair by pair"
    parameters = "sum over the pairs (j, k) of (n_j n_k)^2"
    main = "layout"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = T^(last) ... T^(1), as wide as the larger of the two widths."""
        sizes = self.layout.sizes_for(max(in_features, out_features))
        circuit = {"layout": list(sizes), "gates": ["all_pairs"]}
        return Expansion(circuit, chosen_width=math.prod(sizes) if self.layout.auto is not None else None)
