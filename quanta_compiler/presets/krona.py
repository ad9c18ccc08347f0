"""`krona`: a Kronecker product."""

from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.presets.family import FACTORS, Expansion, Family
from quanta_compiler.presets.layouts import Layout, even_layouts


@dataclass(frozen=True, slots=True)
class Krona(Family):
    """KronA (Edalati et al. 2022)."""

    layout: Layout = field(default=Layout(auto=2), metadata=FACTORS)

    name = "krona"
    meaning = "KronA: a Kronecker product of a matrix for each axis"
    operator = "T = A_0 (x) A_1 (x) ..."
    parameters = "sum over the axes k of m_k n_k"
    main = "layout"

    @classmethod
    def sized(cls, in_features: int, out_features: int) -> dict[str, list[dict[str, Any]]]:
        """Return products of two matrices."""
        layouts = even_layouts(in_features, 2)
        return {
            "": [
                {"version": 1, "name": f"{cls.name}-{a}-{b}", "preset": cls.name, "layout": [a, b]} for a, b in layouts
            ]
        }

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = A_0 (x) A_1 (x) ..., A_k: [m_k, n_k], the last one zero."""
        columns, rows = self.layout.factors(in_features, out_features)
        gates: list[dict[str, Any]] = [{"axes": [axis], "to": [rows[axis]]} for axis in range(len(columns))]
        gates[-1]["init"] = "zeros"
        return Expansion({"layout": list(columns), "gates": gates})
