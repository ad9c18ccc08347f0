"""The matrices of rotations for the kernel: computed from stored numbers in few calls of torch, differentiable.

Blocks of RY and CZ are contracted pair by pair, from the matrices of all RY of a circuit, which one call computes. An
`orthogonal` gate is what rotation_functions.py makes of it. A `pauli` gate that the table takes as a whole is applied
to the first rows of an identity matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kernels.library import matrix_dtype, without_autocast
from quanta_compiler.lowering.small_matrices import Contraction, contracted_block, contracted_plan
from quanta_compiler.lowering.table import MatrixSource, TableEntry
from quanta_compiler.planner.pauli import plan_pauli
from quanta_compiler.planner.plan import PauliPlan
from quanta_compiler.rotation_functions import cayley, cz, exponential, eye, ry

Lookup = Callable[[str, str], torch.Tensor]
"""Returns a stored tensor by its gate and part: "" the matrix, `A` and `B` the factors, `value` of a constant gate."""
Leaf = Callable[[Gate, Sequence[int]], torch.Tensor]
"""Returns the matrix of an RY or the signs of a CZ, as a tensor of some shape."""
Maker = Callable[[dict[str, torch.Tensor], Leaf], torch.Tensor]
"""Makes an entry's matrices, `[blocks, rows, columns]` in any shape, from those of whole gates or from leaves."""
Whole = Callable[[torch.Tensor], torch.Tensor]
"""Makes matrices `[*per, rows, columns]` from what a gate stores."""
Rotation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Rotates vectors `[*per, count, size]` by RY matrices `[*per, angles, 2, 2]`."""


class Rotations:
    """Computes the matrices of those entries of a table that are rotations."""

    def __init__(self, entries: Sequence[TableEntry]) -> None:
        sources = [entry.matrix for entry in entries if entry.matrix is not None]
        self._wholes: dict[str, Whole] = {}
        for entry, source in zip(entries, sources, strict=True):
            if source.gate.kind in ("orthogonal", "pauli"):
                self._wholes.setdefault(source.gate.parameter, _whole(source.gate, entry))
        self._entries = [_maker(entry, source) for entry, source in zip(entries, sources, strict=True)]
        turned = [part for source in sources for part in source.gate.parts or (source.gate,) if part.kind == "ry"]
        self._single = tuple(dict.fromkeys(part.parameter for part in turned if not part.per))
        self._repeated = tuple(dict.fromkeys(part.parameter for part in turned if part.per))
        """Gates of RY with a matrix for every index of `per`."""

    def matrices(self, lookup: Lookup, like: torch.Tensor) -> list[torch.Tensor]:
        """Return the matrices in the dtype of the sums; a circuit that stores nothing has those of `like`."""
        with without_autocast(like.device):
            wholes = {name: make(_precise(lookup(name, ""))) for name, make in self._wholes.items()}
            leaf = self._leaves(lookup, like)
            return [make(wholes, leaf) for make in self._entries]

    def _leaves(self, lookup: Lookup, like: torch.Tensor) -> Leaf:
        """Compute all RY; return what finds them, and makes the signs of CZ."""
        single = [lookup(name, "").flatten() for name in self._single]
        repeated = [lookup(name, "").flatten() for name in self._repeated]
        turns: dict[tuple[str, int], torch.Tensor] = {}
        if single or repeated:
            like = ry(_precise(torch.cat([*single, *repeated])))
            counts = [sum(one.numel() for one in single), *(one.numel() for one in repeated)]
            first, *others = like.split(counts)
            keys = [(name, k) for name, one in zip(self._single, single, strict=True) for k in range(one.numel())]
            turns.update(zip(keys, first.unbind(), strict=True))
            turns.update(zip(((name, 0) for name in self._repeated), others, strict=True))
        like = like.detach().to(matrix_dtype(like.dtype))
        return partial(_leaf, turns, {}, like)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(matrix_dtype(tensor.dtype))


def _leaf(
    turns: dict[tuple[str, int], torch.Tensor],
    signs: dict[tuple[int, ...], torch.Tensor],
    like: torch.Tensor,
    gate: Gate,
    shape: Sequence[int],
) -> torch.Tensor:
    if gate.kind == "ry":
        return turns[gate.parameter, gate.angle or 0].view(*shape)
    key = tuple(shape)
    if key not in signs:
        # The last index of all axes is the last of the gate.
        signs[key] = cz(like, 1, math.prod(key)).view(key)
    return signs[key]


def _maker(entry: TableEntry, source: MatrixSource) -> Maker:
    gate = source.gate
    if gate.kind == "block":
        contraction = contracted_block(gate, source.sizes)
        parts = _shaped(contraction)
        return lambda _, leaf: _contracted(contraction, [leaf(part, shape) for part, shape in parts])
    if gate.kind == "cz":
        return lambda _, leaf: leaf(gate, (entry.blocks,))
    if gate.kind == "ry":
        shape = (entry.blocks, 2, 2)
        return lambda _, leaf: leaf(gate, shape).mT if gate.transpose else leaf(gate, shape)
    return lambda wholes, _: wholes[gate.parameter].mT if gate.transpose else wholes[gate.parameter]


def _shaped(contraction: Contraction) -> list[tuple[Gate, tuple[int, ...]]]:
    """Return the gates that a contraction starts from, and the shapes of their tensors."""
    return [
        (leaf.gate, tuple(contraction.sizes[leg] for leg in leaf.legs))
        for leaf in contraction.leaves
        if leaf.gate is not None
    ]


def _contracted(contraction: Contraction, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    tensors = list(leaves)
    for pair in contraction.pairs:
        tensors.append(torch.einsum(pair.equation, tensors[pair.left], tensors[pair.right]))
    return tensors[-1]


# Gates that are taken as a whole


def _whole(gate: Gate, entry: TableEntry) -> Whole:
    """Return what makes the matrices of the gate that owns the parameter."""
    rows, columns = (entry.columns, entry.rows) if gate.transpose else (entry.rows, entry.columns)
    size, smaller = max(rows, columns), min(rows, columns)
    if gate.kind == "pauli":
        assert gate.layers is not None
        plan = plan_pauli(size, gate.layers, gate.rank_parameters, smaller, transpose=rows < columns)
        return partial(_rotated_rows, _rotation(plan), smaller, size, rows < columns)
    kept = smaller if gate.rank_parameters is None else min(smaller, gate.rank_parameters)
    function = partial(cayley if gate.map == "cayley" else exponential, size=size, columns=smaller, kept=kept)
    # The first rows of Q are the first columns of its transpose, which S with the other sign makes.
    return (lambda numbers: function(-numbers).mT) if rows < columns else function


def _rotated_rows(rotation: Rotation, count: int, size: int, is_wide: bool, angles: torch.Tensor) -> torch.Tensor:
    """Return `[*per, angles] -> [*per, rows, columns]`.

    Rotating the first unit vectors by Q gives its first columns, as rows; by its transpose the first rows of Q.
    """
    turns = ry(angles.flatten()).view(*angles.shape, 2, 2)
    rotated = rotation(eye(angles, count, size).expand(*angles.shape[:-1], count, size), turns)
    return rotated if is_wide else rotated.mT


def _rotation(plan: PauliPlan) -> Rotation:
    """Return what applies a plan."""
    if plan.halves is not None:
        first, second = map(_rotation, plan.halves)
        return partial(_sum, plan, first, second)
    if plan.plan is None:
        return lambda x, _: x
    contraction = contracted_plan(plan.plan)
    parts = _shaped(contraction)
    shape = [contraction.sizes[leg] for leg in contraction.leaves[0].legs]
    return partial(_two_design, contraction, shape, parts)


def _two_design(
    contraction: Contraction,
    shape: Sequence[int],
    parts: Sequence[tuple[Gate, tuple[int, ...]]],
    x: torch.Tensor,
    turns: torch.Tensor,
) -> torch.Tensor:
    signs, each = cz(x, 2, 2), turns.unbind(-3)
    leaves = [x.reshape(*x.shape[:-2], *shape)]
    leaves += [signs if part.angle is None else each[part.angle] for part, _ in parts]
    return _contracted(contraction, leaves).reshape(x.shape)


def _sum(plan: PauliPlan, first: Rotation, second: Rotation, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Apply diag(U1, U2) C diag(V1, V2), or its transpose, where the last is applied first and C turns back."""
    assert plan.halves is not None
    counts, turned = [half.angles for half in plan.halves], plan.turned
    v1, v2, c, u1, u2 = turns.split([*counts, turned, *counts], dim=-3)
    if plan.transpose:
        v1, v2, c, u1, u2 = u1, u2, c.mT, v1, v2
    a, b = first(x[..., : plan.halves[0].size], v1), second(x[..., plan.halves[0].size :], v2)
    # Column k of the pairs is turned by matrix k.
    pairs = torch.stack([a[..., :turned], b[..., :turned]], dim=-1)
    pairs = torch.einsum("...kij,...nkj->...nki", c, pairs)
    a = torch.cat([pairs[..., 0], a[..., turned:]], dim=-1)
    b = torch.cat([pairs[..., 1], b[..., turned:]], dim=-1)
    return torch.cat([first(a, u1), second(b, u2)], dim=-1)
