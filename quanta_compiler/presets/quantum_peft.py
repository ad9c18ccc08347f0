"""`quantum_peft`: a low-rank product of orthogonal factors from few angles."""

from dataclasses import dataclass
from typing import Any

from quanta_compiler.kinds.options import LAYERS, option
from quanta_compiler.presets.family import Expansion, Family, Limit, number


@dataclass(frozen=True, slots=True)
class QuantumPeft(Family):
    """Quantum-PEFT (Koike-Akino et al. 2025)."""

    rank: int = number("The rank of U diag(s) V^T.", 8)
    layers: int = option(LAYERS, 1)

    name = "quantum_peft"
    meaning = "Quantum-PEFT: U diag(s) V^T, U and V of orthonormal columns from few angles"
    operator = "T = U diag(s) V^T, U: [m, r] and V: [n, r] of orthonormal columns, r being `rank`"
    parameters = "p(n) + p(m) + r, p(2^q) = (2 L + 1) q - 2 L, L being `layers`; more where a width is no power of two"
    main = "rank"
    grows = "rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = U diag(s) V^T, U: [m, r] and V: [n, r] of orthonormal columns.

        V^T is the first rows of an orthogonal n x n matrix, U the first columns of an m x m one. s is zero at the
        start.
        """
        rotation: dict[str, Any] = {"axes": [0], "kind": "pauli", "layers": self.layers}
        gates: list[dict[str, Any]] = [
            {"name": "V", "to": [self.rank], **rotation},
            {"name": "s", "axes": [0], "kind": "diagonal", "init": "zeros"},
            {"name": "U", "to": [out_features], **rotation},
        ]
        limit = Limit(min(in_features, out_features), "the smaller of the two widths")
        return Expansion({"layout": [in_features], "gates": gates}, limits={"rank": limit})
