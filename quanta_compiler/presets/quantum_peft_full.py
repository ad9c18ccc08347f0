"""`quantum_peft_full`: one orthogonal matrix from few angles."""

from dataclasses import dataclass

from quanta_compiler.kinds.options import LAYERS, option
from quanta_compiler.presets.family import Expansion, Family


@dataclass(frozen=True, slots=True)
class QuantumPeftFull(Family):
    """Quantum-PEFT of full rank (Koike-Akino et al. 2025)."""

    layers: int = option(LAYERS, 1)

    name = "quantum_peft_full"
    meaning = "Quantum-PEFT of full rank: one orthogonal matrix from few angles"
    operator = "T = the first m rows and n columns of an orthogonal matrix of size max(n, m)"
    parameters = "p(max(n, m)), p(2^q) = (2 L + 1) q - 2 L, L being `layers`; more where the width is no power of two"
    main = "layers"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return an orthogonal matrix as wide as the larger width, of which T: [m, n] is the first rows or columns."""
        gate = {"axes": [0], "to": [out_features], "kind": "pauli", "layers": self.layers}
        return Expansion({"layout": [in_features], "gates": [gate]})
