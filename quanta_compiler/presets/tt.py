"""`tt`: a tensor-train matrix; and the trains that other families are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.presets.family import FACTORS, Expansion, Family, number
from quanta_compiler.presets.layouts import Layout


@dataclass(frozen=True, slots=True)
class TensorTrain(Family):
    """A tensor-train matrix (Novikov et al. 2015)."""

    layout: Layout = field(default=Layout(auto=4), metadata=FACTORS)
    rank: int = number("The size of every bond.", 8)

    name = "tt"
    meaning = "A tensor-train matrix: a core for each axis, joined by bonds"
    operator = "T[i, j] = G_0[i_0, j_0] G_1[i_1, j_1] ... G_(N-1)[i_(N-1), j_(N-1)]"
    parameters = "r m_0 n_0 + r^2 (m_1 n_1 + ... + m_(N-2) n_(N-2)) + r m_(N-1) n_(N-1), r being `rank`"
    main = "rank"
    grows = "rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T[i, j] = G_0[i_0, j_0] G_1[i_1, j_1] ..., with bonds of size r.

        The last core is applied first, so that the state is never larger than r times the largest of the partial
        products.
        """
        columns, rows = self.layout.factors(in_features, out_features)
        # A bond is the rank of the matrix with all of one side's indices as rows and all of the other's as columns.
        both = [row * column for row, column in zip(rows, columns, strict=True)]
        largest = {"rank": largest_bond(both, both)} if len(both) > 1 else {}
        circuit = {"layout": list(columns), "init": "orthogonal", "gates": train(columns, rows, self.rank, {})}
        return Expansion(circuit, largest)


def train(columns: Sequence[int], rows: Sequence[int], bond: int, more: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cores of a train from the last axis to the first, each with `more`; the last one applied is zero."""
    gates: list[dict[str, Any]] = []
    for axis in reversed(range(len(columns))):
        given = [f"s{axis + 1}"] if axis + 1 < len(columns) else []
        handed: dict[int | str, int] = {f"s{axis}": bond} if axis else {}
        to = {axis: rows[axis], **handed}
        gates.append({"name": f"core{axis}", "axes": [axis, *given], "to": to, **more})
    gates[-1]["init"] = "zeros"
    return gates


def largest_bond(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the largest rank that a bond can have, with the sizes to its left against those to its right."""
    return max(min(math.prod(left[:cut]), math.prod(right[cut:])) for cut in range(1, len(left)))
