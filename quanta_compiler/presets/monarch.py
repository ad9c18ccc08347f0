"""`monarch`: two block-diagonal matrices."""

from dataclasses import dataclass
from typing import Any

from quanta_compiler.presets.family import Expansion, Family, number


@dataclass(frozen=True, slots=True)
class Monarch(Family):
    """Monarch (Dao et al. 2022; rectangular as in MoRe, Tan et al. 2024)."""

    blocks: int = number("The blocks of each of the two matrices.", 4)
    block_rank: int = number("The rows of a block of the first matrix, the columns of one of the second.", 4)

    name = "monarch"
    meaning = "Monarch: two block-diagonal matrices and a fixed permutation after each"
    operator = "T = P_2 L P_1 R"
    parameters = "r b (ceil(n / b) + ceil(m / b)), b being `blocks` and r `block_rank`"
    main = "blocks"
    grows = "block_rank"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = P_2 L P_1 R.

        R is block-diagonal with N blocks of [r, n / N], L with N blocks of [m / N, r]. P_1 reads the N r numbers, P_2
        the m numbers as a matrix and transposes it, so that the r numbers of a block of R are dealt out to the blocks
        of L one after the other: every block of L sees all blocks of R where r >= N, and only some of them where
        r < N. About r / N numbers go from a block of R to one of L, and only min(m, n) / N of them can be of use. L is
        zero at the start.
        """
        blocks, rank = self.blocks, self.block_rank
        columns, rows = -(-in_features // blocks), -(-out_features // blocks)
        first: dict[str, Any] = {"name": "R", "axes": [1], "per": [0], "to": {"k": rank}}
        if blocks == rank:
            # P_1 only exchanges the two axes.
            middle: list[dict[str, Any]] = []
            second = {"name": "L", "axes": [0], "per": ["k"], "to": {"o": rows}, "init": "zeros"}
            output = ["o", "k"]
        else:
            middle = [{"name": "P", "kind": "slice", "axes": [0, "k"], "to": {"c": rank, "b": blocks}}]
            second = {"name": "L", "axes": ["c"], "per": ["b"], "to": {"o": rows}, "init": "zeros"}
            output = ["o", "b"]
        circuit = {"layout": [blocks, columns], "gates": [first, *middle, second], "output": output}
        # With fewer outputs than blocks, most blocks of L are cut off: what is left may be connected by a smaller rank.
        connecting = {"block_rank": blocks} if blocks <= out_features else {}
        return Expansion(circuit, {"block_rank": blocks * min(rows, columns)}, connecting)
