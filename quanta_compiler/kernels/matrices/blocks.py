"""The matrices of blocks of RY and CZ, in a handful of torch calls for all blocks of one size.

Every RY becomes a matrix of the block's size, the signs of the CZ behind it included: a product of constants with its
four numbers and a one. Pairs of neighbours are multiplied, all at once, until one matrix of each block is left. That
has more FLOPs than contracting small tensors, and far fewer calls, which are what takes time.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.lowering.small_matrices import BlockGroup, Slot

Places = Mapping[tuple[str, int], int]
"""Where the matrix of an RY stands among all, by parameter and angle: the first, of those with `per`."""


class BlockMatrices:
    """Makes the matrices of a group of blocks."""

    def __init__(self, group: BlockGroup, places: Places) -> None:
        self._copies, self._depth, self._side = list(group.copies), group.depth, group.side
        made = [
            _Factors(block, group.sizes, places).all(slots, group.depth)
            for block, slots in zip(group.blocks, group.slots, strict=True)
        ]
        # Zeros, ones and minus ones: exact whatever torch's default dtype is now.
        self._constants = torch.cat([constants for constants, _ in made]).to(torch.float32)
        """`[matrices * depth, 5, side * side]`: how an RY's numbers, and a one, make a matrix."""
        self._turns = torch.cat([turns for _, turns in made])
        """`[matrices * depth]`: which RY that is; any where constants are all."""

    def matrices(self, turns: torch.Tensor) -> list[torch.Tensor]:
        """Return `[per, side, side]` for each block from all RY, `[number, 2, 2]`."""
        numbers = turns.reshape(-1, 4).index_select(0, self._turns.to(turns.device))
        numbers = torch.nn.functional.pad(numbers, (0, 1), value=1.0)
        factors = numbers.unsqueeze(1) @ self._constants.to(turns)
        depth = self._depth
        product = factors.view(-1, depth, self._side, self._side)
        while depth > 1:
            depth //= 2
            first, second = product.view(-1, depth, 2, self._side, self._side).unbind(2)
            product = second @ first
        return list(torch.split(product.squeeze(1), self._copies))


class _Factors:
    """The factors of one block as constants; its indices are the bits of its columns, the first slowest."""

    def __init__(self, block: Gate, sizes: Sequence[int], places: Places) -> None:
        self.block, self.sizes, self.places = block, sizes, places
        self.count = len(block.columns)
        self.wire = {leg: number for number, leg in enumerate(block.columns)}
        self.copies = math.prod(sizes[leg] for leg in block.per)

    def all(self, slots: Sequence[Slot], depth: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `[copies * depth, 5, side * side]` and which RY each one takes."""
        constants, turns = zip(*(self._factor(slot) for slot in slots), strict=True)
        rows = self._rows()
        constants = (*constants[:-1], constants[-1][:, rows])
        idle, first = self._factor(Slot(None))
        missing = depth - len(slots)
        whole = torch.stack([*constants, *[idle] * missing], dim=1)
        places = torch.stack([*turns, *[first] * missing], dim=1)
        return whole.flatten(0, 1).flatten(1, 2).mT.contiguous(), places.flatten()

    def _factor(self, slot: Slot) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `[copies, side, side, 5]` and the RY of every copy."""
        side = 1 << self.count
        one = torch.zeros(side, side, 5)
        one[..., 4] = torch.eye(side)
        if slot.turn is None:
            factor, turns = one.expand(self.copies, -1, -1, -1), torch.zeros(self.copies, dtype=torch.int64)
        else:
            turns = self.places[slot.turn.parameter, slot.turn.angle or 0] + self._place(slot)
            acts = torch.ones(1, side, dtype=torch.bool)
            for leg, index in slot.where:
                acts = acts & (self._index(leg) == index)
            factor = torch.where(acts[..., None, None], self._turned(slot.turn), one).expand(self.copies, -1, -1, -1)
        signs = torch.ones(self.copies, side)
        for gate in slot.signs:
            last = torch.ones(self.copies, side, dtype=torch.bool)
            for leg in gate.columns:
                last &= self._index(leg) == self.sizes[leg] - 1
            signs[last] *= -1
        return factor * signs[..., None, None], turns

    def _turned(self, turn: Gate) -> torch.Tensor:
        """Return `[side, side, 5]` of an RY, whose leg goes on as the one behind it."""
        wire = self.wire[turn.columns[0]]
        self.wire[turn.rows[0]] = wire
        before, after = torch.eye(1 << wire), torch.eye(1 << (self.count - wire - 1))
        factor = torch.zeros(1 << self.count, 1 << self.count, 5)
        for number in range(4):
            entry = torch.zeros(2, 2)
            entry[divmod(number, 2)[:: -1 if turn.transpose else 1]] = 1.0
            factor[..., number] = torch.kron(torch.kron(before, entry), after)
        return factor

    def _index(self, leg: int) -> torch.Tensor:
        """Return the index of a leg for every copy and column, broadcast."""
        if leg in self.wire:
            return (torch.arange(1 << self.count) >> (self.count - 1 - self.wire[leg]) & 1)[None]
        place = self.block.per.index(leg)
        faster = math.prod(self.sizes[other] for other in self.block.per[place + 1 :])
        return (torch.arange(self.copies) // faster % self.sizes[leg])[:, None]

    def _place(self, slot: Slot) -> torch.Tensor:
        assert slot.turn is not None
        place, where = torch.zeros(self.copies, dtype=torch.int64), dict(slot.where)
        for leg in slot.turn.per:
            place = place * self.sizes[leg] + (where[leg] if leg in where else self._index(leg)[:, 0])
        return place

    def _rows(self) -> torch.Tensor:
        """Return the order of the rows: bits in the order of the block's rows."""
        rows = torch.zeros(1 << self.count, dtype=torch.int64)
        numbers = torch.arange(1 << self.count)
        for bit, leg in enumerate(self.block.rows):
            rows |= (numbers >> (self.count - 1 - bit) & 1) << (self.count - 1 - self.wire[leg])
        return rows
