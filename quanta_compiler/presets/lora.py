"""`lora`: a low-rank product."""

from dataclasses import dataclass
from typing import Any

from quanta_compiler.presets.family import Expansion, Family, number


@dataclass(frozen=True, slots=True)
class Lora(Family):
    """LoRA (Hu et al. 2021, eq. 3)."""

    rank: int = number("The rank of B A.", 8)

    name = "lora"
    meaning = "LoRA: a low-rank product B A"
    operator = "T = B A"
    parameters = "r (n + m), r being `rank`"
    main = "rank"
    grows = "rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = B A, A: [r, n], B: [m, r], B zero at the start."""
        factors = {"kind": "lowrank", "rank": self.rank, "init": "zeros"}
        gate: dict[str, Any] = {"axes": [0], "to": [out_features], **factors}
        return Expansion({"layout": [in_features], "gates": [gate]}, {"rank": min(in_features, out_features)})
