"""The rows of an operator, made by an engine from a table (lowering/rows.py), some at a time or all of them."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch

from quanta_compiler.kernels.engine import Runner, engine_for
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.kernels.matrices.rotations import Lookup
from quanta_compiler.kernels.precision import Matrices
from quanta_compiler.lowering.rows import Legs, OperatorRows
from quanta_compiler.lowering.small_matrices import contracted_pairs
from quanta_compiler.planner.plan import Leaf

TILE = 16
"""How many vectors the kernel for CPUs takes together."""
_SHARE = 32
"""A block of rows for several threads is at most this part of the matrix; that of one tile may be more."""


class Rows:
    """Makes the rows of one circuit's operator from its stored tensors, without gradient and autocast."""

    def __init__(self, rows: OperatorRows) -> None:
        self._rows = rows
        plan = rows.plan
        self._pairs = contracted_pairs(plan)
        self._legs = [leaf.legs for leaf in plan.leaves] + [pair.legs for pair in self._pairs]
        self._height = plan.size(plan.output[: plan.rows]) // rows.count
        """How many rows of the operator a vector is."""
        self._width = plan.size(plan.output[plan.rows :])
        self.tiles = rows.count // TILE
        """How many blocks of rows there are at most, or one less."""
        self._runners: dict[object, Runner] = {}

    def blocks(self, lookup: Lookup, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield `[rows, in_features]` and which rows these are, in order: those of a tile for each thread at a time."""
        rows, matrices = self._rows, self._matrices(lookup, dtype)
        first, size = 0, rows.plan.sizes[rows.tokens[0]]
        some = TILE * max(1, min(torch.get_num_threads(), self.tiles // _SHARE))
        step = min(size, math.ceil(some * size / rows.count))
        for start in range(0, size, step):
            vectors = self._vectors(lookup, dtype, start, min(step, size - start))
            for few in torch.split(vectors, some):
                last = first + len(few) * self._height
                # Not held here: the caller may have dropped it before it asks for the next.
                yield slice(first, last), self._made(few, matrices, device)
                first = last

    def whole(self, lookup: Lookup, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return the operator, `[out_features, in_features]`."""
        vectors = self._vectors(lookup, dtype, 0, self._rows.plan.sizes[self._rows.tokens[0]])
        return self._made(vectors, self._matrices(lookup, dtype), device)

    def _made(self, vectors: torch.Tensor, matrices: Matrices, device: torch.device) -> torch.Tensor:
        engine = engine_for("cpu", vectors.dtype) if device.type == "cpu" else portable
        if engine not in self._runners:
            self._runners[engine] = engine.prepare(self._rows.table)
        return self._runners[engine].forward(vectors, matrices).view(-1, self._width)

    def _vectors(self, lookup: Lookup, dtype: torch.dtype, start: int, count: int) -> torch.Tensor:
        """Return those vectors that some indices of their first leg number, `[tokens, numbers]`."""
        rows = self._rows

        def leaf(leaf: Leaf) -> torch.Tensor:
            stored, first = self._stored(leaf, lookup, dtype), rows.tokens[0]
            return stored.narrow(leaf.legs.index(first), start, count) if first in leaf.legs else stored

        return self._contracted(rows.vectors, rows.tokens + rows.table.inputs, leaf).view(-1, rows.table.in_features)

    def _matrices(self, lookup: Lookup, dtype: torch.dtype) -> list[torch.Tensor]:
        stored = partial(self._stored, lookup=lookup, dtype=dtype)
        return [self._contracted(place, legs, stored) for place, legs in self._rows.matrices]

    def _contracted(self, place: int, legs: Legs, leaf: Callable[[Leaf], torch.Tensor]) -> torch.Tensor:
        """Return a tensor of the plan with its legs in an order."""
        leaves = self._rows.plan.leaves

        def tensor(place: int) -> torch.Tensor:
            if place < len(leaves):
                return leaf(leaves[place])
            pair = self._pairs[place - len(leaves)]
            return torch.einsum(pair.equation, tensor(pair.left), tensor(pair.right))

        return tensor(place).permute([self._legs[place].index(leg) for leg in legs]).contiguous()

    def _stored(self, leaf: Leaf, lookup: Lookup, dtype: torch.dtype) -> torch.Tensor:
        assert leaf.gate is not None
        if leaf.gate.matrix.given is not None:
            stored = lookup(leaf.gate.name, "value")
        else:
            stored = lookup(leaf.gate.parameter, {"factor_b": "B", "factor_a": "A"}.get(leaf.source, ""))
        return stored.detach().to(dtype).reshape([self._rows.plan.sizes[leg] for leg in leaf.legs])
