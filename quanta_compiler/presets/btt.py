"""`btt`: a block tensor train."""

from dataclasses import dataclass, field

from quanta_compiler.presets.family import FACTORS, Expansion, Family, number
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.presets.tt import largest_bond, train


@dataclass(frozen=True, slots=True)
class BlockTensorTrain(Family):
    """A block tensor train (Qiu et al. 2024)."""

    layout: Layout = field(default=Layout(auto=2), metadata=FACTORS)
    rank: int = number("The size of every bond.", 1)

    name = "btt"
    meaning = "A block tensor train: a tensor train whose cores differ for every index of the other axes"
    operator = "T[(a b), (c d)] = sum over s of L[a, b, c, s] R[b, c, d, s], for two axes"
    parameters = "sum over the axes k of n_0 ... n_k m_k ... m_(N-1) times `rank` for each bond of core k"
    main = "rank"
    grows = "rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return a tensor train, each core different for every other index.

        With two axes T[(a b), (c d)] = sum_s L[a, b, c, s] R[b, c, d, s], and rank 1 is a Monarch matrix.
        """
        columns, rows = self.layout.factors(in_features, out_features)
        largest = {"rank": largest_bond(rows, columns)} if len(rows) > 1 else {}
        gates = train(columns, rows, self.rank, {"per": "rest"})
        return Expansion({"layout": list(columns), "gates": gates}, largest)
