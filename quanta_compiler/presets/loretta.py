"""`loretta`: a LoRA whose factors are tensor trains."""

from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.presets.family import FACTORS, Expansion, Family, number
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.presets.tt import largest_bond


@dataclass(frozen=True, slots=True)
class Loretta(Family):
    """LoRETTA_rep (Yang et al. 2024)."""

    layout: Layout = field(default=Layout(auto=4), metadata=FACTORS)
    rank: int = number("The rank of B A.", 8)
    tt_rank: int = number("The size of every bond of the two trains; it bounds the rank too.", 8)

    name = "loretta"
    meaning = "LoRETTA: a LoRA whose A and B are tensor trains"
    operator = "T = B A, A the train of [n_0, ..., n_(N-1), r], B that of [r, m_0, ..., m_(N-1)]"
    parameters = "t n_0 + t^2 (n_1 + ... + n_(N-1)) + 2 t r + t^2 (m_0 + ... + m_(N-2)) + t m_(N-1), t being `tt_rank`"
    main = "rank"
    grows = "tt_rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = B A, the numbers of A and of B each a tensor train with bonds of size t.

        A is the train of the tensor [n_0, ..., r], B that of [r, m_0, ...]: a core for each factor and one for r. What
        goes from one to the other passes a bond of each, so that the rank of T is at most the smaller of r and t.
        """
        columns, rows = self.layout.factors(in_features, out_features)
        last, bond = len(columns) - 1, self.tt_rank
        gates: list[dict[str, Any]] = []
        for axis in range(len(columns)):
            before = [f"a{axis - 1}"] if axis else []
            gates.append({"name": f"A{axis}", "axes": [*before, axis], "to": {f"a{axis}": bond}})
        gates.append({"name": "A_rank", "axes": [f"a{last}"], "to": {"r": self.rank}})
        gates.append({"name": "B_rank", "axes": ["r"], "to": {"b0": bond}})
        for axis, size in enumerate(rows):
            after = {f"b{axis + 1}": bond} if axis < last else {}
            gates.append({"name": f"B{axis}", "axes": [f"b{axis}"], "to": {f"y{axis}": size, **after}})
        gates[-1]["init"] = "zeros"
        circuit = {"layout": list(columns), "init": "orthogonal", "gates": gates}
        most = min(in_features, out_features)
        rank = min(self.rank, most)
        bonds = (largest_bond(sizes, sizes) for sizes in ([*columns, rank], [rank, *rows]))
        return Expansion(circuit, {"rank": min(most, bond), "tt_rank": max(bonds)})
