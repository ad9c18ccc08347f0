"""`oft`, `boft` and `gsoft`: block-diagonal orthogonal matrices, which turn what a layer reads.

All are square, as wide as the larger of the two widths; an adapter has them with `placement: input`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, ClassVar

from quanta_compiler.kinds.limits import WIDTH
from quanta_compiler.kinds.options import Integer, Key, option
from quanta_compiler.presets.family import Expansion, Family, Limit
from quanta_compiler.text.words import plural

_SIZE = 32
"""The rows of a block where the file does not say how many there are, as PEFT's OFT has them; fewer for BOFT."""
_BUTTERFLY_SIZE = 8
_FACTORS = 24
_PADDING = 1.01
"""How much wider than the layer a circuit may be where numbers of blocks are chosen."""
_WRITE_OFT = "preset='oft:BLOCKS', placement='input'"
_WRITE_BOFT = "preset='boft:blocks=BLOCKS,factors=FACTORS', placement='input'"
_NO_DROPOUT = "leave it out: `dropout` drops numbers of the input, and nothing drops blocks"


def _blocks(text: str) -> Any:
    return option(Key(Integer(1, WIDTH), text), None)


@dataclass(frozen=True, slots=True)
class Oft(Family):
    """OFT (Qiu et al. 2023)."""

    blocks: int | None = _blocks("The blocks of the matrix; by default so many that they have up to 32 rows.")

    name = "oft"
    meaning = "OFT: a block-diagonal orthogonal matrix"
    operator = "T = diag(Q_1, ..., Q_b), Q_i by Cayley's map"
    parameters = "b s (s - 1) / 2, b being `blocks` and s = n / b, n the larger width"
    main = "blocks"
    placement = "input"
    theirs: ClassVar[Mapping[str, str]] = {
        "oft_block_size": f"for `oft_block_size` write the number of blocks: {_WRITE_OFT}",
        "use_cayley_neumann": f"leave `use_cayley_neumann` out: Cayley's map is exact in {_WRITE_OFT}",
        "module_dropout": _NO_DROPOUT,
    }

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = diag(Q_1, ..., Q_b)."""
        width = max(in_features, out_features)
        sizes = range(_SIZE, _SIZE // 4 - 1, -1) if width > _SIZE else range(max(2, width), 1, -1)
        size = max(2, ceil(width / self.blocks)) if self.blocks else _size(width, sizes)
        blocks = self.blocks or ceil(width / size)
        return _square([blocks, size], [_turn([1], [0])])


@dataclass(frozen=True, slots=True)
class Boft(Family):
    """BOFT (Liu et al. 2024)."""

    blocks: int | None = _blocks("The blocks of each factor; by default so many that they have up to 8 rows.")
    factors: int = option(
        Key(Integer(1, _FACTORS), "The factors; each but the first deals out the halves of its blocks anew."),
        2,
    )

    name = "boft"
    meaning = "BOFT: a butterfly of block-diagonal orthogonal matrices"
    operator = "T = B_1 B_2 ... B_m, B_i block-diagonal after halves 2^(i-1) apart were put together"
    parameters = "m b s (s - 1) / 2, m being `factors`, b `blocks` and s = n / b, n the larger width"
    main = "blocks"
    placement = "input"
    theirs: ClassVar[Mapping[str, str]] = {
        "boft_block_size": f"for `boft_block_size` write the number of blocks: {_WRITE_BOFT}",
        "boft_block_num": f"`boft_block_num` is BLOCKS in {_WRITE_BOFT}",
        "boft_n_butterfly_factor": f"`boft_n_butterfly_factor` is FACTORS in {_WRITE_BOFT}",
        "boft_dropout": _NO_DROPOUT,
    }

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = B_1 ... B_m over a layout of halves: [2 b / 2^m, 2, ..., 2, s / 2].

        B_i has a block for the halves whose numbers differ in the i-th bit alone; the last is applied first.
        """
        width, factors = max(in_features, out_features), self.factors
        step = 2 ** (factors - 1)
        blocks = self.blocks or step * ceil(width / (step * _size(width, range(_BUTTERFLY_SIZE, 1, -2), step)))
        # How often two goes into the number of blocks.
        largest = (blocks & -blocks).bit_length()
        limit = Limit(largest, f"what {plural(blocks, 'block')} can be halved for")
        if factors > largest:
            return Expansion({}, limits={"factors": limit})
        layout = [blocks // step, *[2] * factors, ceil(width / (2 * blocks))]
        last = len(layout) - 1
        gates = [_turn([bit, last], [axis for axis in range(last) if axis != bit]) for bit in range(1, factors + 1)]
        return _square(layout, gates)


@dataclass(frozen=True, slots=True)
class Gsoft(Family):
    """GSOFT (Gorbunov et al. 2024)."""

    blocks: int | None = _blocks("The blocks of each of the two matrices; by default those with the fewest numbers.")

    name = "gsoft"
    meaning = "GSOFT: two block-diagonal orthogonal matrices with a shuffle between them"
    operator = "T = P^T L P R"
    parameters = "b s (s - 1), b being `blocks` and s = n / b, n the larger width"
    main = "blocks"
    placement = "input"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = P^T L P R over a layout [b, b, s / b]: R turns the last two axes, L the first and the last.

        P deals out the numbers of each block of R to the blocks of L in turn, so that each depends on all.
        """
        width = max(in_features, out_features)
        blocks = self.blocks or _fewest(width)
        last = max(ceil(width / blocks**2), 1 if blocks > 1 else 2)
        return _square([blocks, blocks, last], [_turn([1, 2], [0]), _turn([2, 0], [1])])


def _turn(axes: list[int], per: list[int]) -> dict[str, Any]:
    return {"axes": axes, "per": per, "kind": "orthogonal", "map": "cayley"}


def _square(layout: list[int], gates: list[dict[str, Any]]) -> Expansion:
    return Expansion({"layout": layout, "gates": gates}, chosen_width=prod(layout))


def _size(width: int, sizes: range, unit: int = 1) -> int:
    """Return the first size of which whole units of blocks make a width; the first of all where none does."""
    return next((size for size in sizes if width % (size * unit) == 0), sizes[0])


def _fewest(width: int) -> int:
    """Return the number of blocks with the fewest trained numbers; of those that pad nothing, where they are as few."""
    found = []
    for blocks in range(1, int(width**0.5) + 2):
        size = blocks * ceil(width / blocks**2)
        if blocks * size <= max(_PADDING * width, width + 1):
            found.append((blocks * size * (size - 1), blocks, blocks * size == width))
    best, exact = min(found), min(one for one in found if one[2])
    return exact[1] if exact[0] <= 1.3 * best[0] else best[1]
