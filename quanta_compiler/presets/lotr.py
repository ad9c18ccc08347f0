"""`lotr`: low-rank products whose outer factors all layers have together."""

from dataclasses import dataclass
from typing import Any

from quanta_compiler.presets.family import Expansion, Family, number


@dataclass(frozen=True, slots=True)
class Lotr(Family):
    """LoTR (Bershatsky et al. 2024): the updates of all layers as one tensor, in Tucker form but for the layers."""

    rank: int = number("The rank of B G A.", 32)

    name = "lotr"
    meaning = "LoTR: a low-rank product B G A, of which all layers share A and B"
    operator = "T = B G A, A and B those of all layers of the same widths"
    parameters = "r^2 a layer and r (n + m) for all layers of the same widths, r being `rank`"
    main = "rank"
    grows = "rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = B G A, A: [r, n], G: [r, r], B: [m, r], G zero at the start; A and B are across all layers."""
        gates: list[dict[str, Any]] = [
            {"name": "A", "axes": [0], "to": [self.rank], "across": "all"},
            {"name": "G", "axes": [0], "init": "zeros"},
            {"name": "B", "axes": [0], "to": [out_features], "across": "all"},
        ]
        circuit = {"layout": [in_features], "init": "orthogonal", "gates": gates}
        return Expansion(circuit, {"rank": min(in_features, out_features)})
