"""The matrices of gates that are made: computed from stored numbers in few calls of torch, differentiable.

All RY of a circuit are computed by one call, and the blocks that they stand in made together. A gate whose kind has a
function is what that makes, the one that emitted files have. A `pauli` gate that the table takes as a whole is applied
to the first rows of an identity matrix; on few of them the kernel does that, where there is one.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import torch

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kernels.engines.cpu.turnings import TurningTable
from quanta_compiler.kernels.matrices.blocks import BlockMatrices
from quanta_compiler.kernels.matrices.turned import by_kernel
from quanta_compiler.kernels.precision import matrix_dtype, without_autocast
from quanta_compiler.kinds.kind import Form, Kind
from quanta_compiler.lowering.functions import applying, making
from quanta_compiler.lowering.program import Call, Function, Join, Maker, Operation, Split, Turn
from quanta_compiler.lowering.small_matrices import Pair, block_groups, contracted_pairs
from quanta_compiler.lowering.table import MatrixSource, TableEntry
from quanta_compiler.lowering.turnings import SHORT, turned_numbers, turnings
from quanta_compiler.planner.pauli import plan_blocks, plan_pauli
from quanta_compiler.planner.plan import Leaf
from quanta_compiler.runtime import rotation_functions
from quanta_compiler.runtime.rotation_functions import cz, eye, ry

Lookup = Callable[[str, str], torch.Tensor]
"""Returns a stored tensor by its gate and part: "" the matrix, `A` and `B` the factors, `value` of a constant gate."""
Whole = Callable[[torch.Tensor], torch.Tensor]
"""Makes matrices `[*per, rows, columns]` from what a gate stores."""
Blocks = Sequence[torch.Tensor]
BlockMaker = Callable[[torch.Tensor], list[torch.Tensor]]
"""Makes the blocks of `pauli` gates from a stack of angles, `[stack, angles]`."""
Rotation = Callable[[torch.Tensor, Blocks], torch.Tensor]
"""Rotates vectors `[stack, count, size]` by blocks `[stack, ...]`."""
Step = Callable[[Sequence[torch.Tensor], Blocks], list[torch.Tensor]]
"""An operation of a function: makes values of earlier ones, the first of which are the vectors."""


class Rotations:
    """Computes the matrices of those entries of a table that are rotations."""

    def __init__(self, entries: Sequence[TableEntry]) -> None:
        sources = [entry.matrix for entry in entries if entry.matrix is not None]
        self._gates = tuple((source.gate, entry.blocks) for entry, source in zip(entries, sources, strict=True))
        self._wholes: dict[str, Whole] = {}
        for entry, (gate, _) in zip(entries, self._gates, strict=True):
            if gate.form in (Form.FUNCTION, Form.CIRCUIT):
                self._wholes.setdefault(gate.parameter, _whole(gate, entry))
        turned = _turned(sources)
        self._owners = tuple(turned)
        """Whose numbers are angles of RY."""
        firsts = accumulate((sum(angles.values()) for angles in turned.values()), initial=0)
        self._places = {
            (name, angle): first + place
            for (name, angles), first in zip(turned.items(), firsts, strict=False)
            for place, angle in enumerate(sorted(angles))
        }
        blocks = [gate for gate, _ in self._gates if gate.parts]
        groups = block_groups(blocks, sources[0].sizes)
        self._blocks = [(group.blocks, BlockMatrices(group, self._places)) for group in groups]

    def matrices(self, lookup: Lookup, like: torch.Tensor) -> list[torch.Tensor]:
        """Return the matrices in the dtype of the sums; a circuit that stores nothing has those of `like`."""
        with without_autocast(like.device):
            found = {name: make(_precise(lookup(name, ""))) for name, make in self._wholes.items()}
            stored = [lookup(name, "").flatten() for name in self._owners]
            like = stored[0] if stored else like
            turns = ry(_precise(torch.cat([*stored, like.new_zeros(1)])))
            for blocks, made in self._blocks:
                found.update(zip((block.name for block in blocks), made.matrices(turns), strict=True))
            matrices = []
            for gate, count in self._gates:
                if gate.parts:
                    matrix = found[gate.name]
                elif gate.form is Form.SIGNS:
                    # The last index of all axes is the last of the gate.
                    matrix = cz(turns.detach(), 1, count)
                else:
                    if gate.form is Form.ANGLE:
                        place = self._places[gate.parameter, gate.angle or 0]
                        matrix = turns[place : place + count]
                    else:
                        matrix = found[gate.parameter]
                    matrix = matrix.mT if gate.transpose else matrix
                matrices.append(matrix)
            return matrices


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(matrix_dtype(tensor.dtype))


def _turned(sources: Sequence[MatrixSource]) -> dict[str, dict[int, int]]:
    """Return how many RY there are, by the gate that stores their angles and the place of an angle in it."""
    found: dict[str, dict[int, int]] = {}
    for source in sources:
        for part in source.gate.parts or (source.gate,):
            if part.form is Form.ANGLE:
                count = math.prod(source.sizes[leg] for leg in part.per)
                found.setdefault(part.parameter, {})[part.angle or 0] = count
    return found


def _contracted(pairs: Sequence[Pair], leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    tensors = list(leaves)
    for pair in pairs:
        tensors.append(torch.einsum(pair.equation, tensors[pair.left], tensors[pair.right]))
    return tensors[-1]


# Gates that are taken as a whole


def _whole(gate: Gate, entry: TableEntry) -> Whole:
    rows, columns = (entry.columns, entry.rows) if gate.transpose else (entry.rows, entry.columns)
    if gate.form is Form.CIRCUIT:
        alike, smaller = gate.matrix.two_design(rows, columns), min(rows, columns)
        function = applying(plan_pauli(*alike, smaller, transpose=rows < columns))
        maker = _block_maker(making(plan_blocks(*alike, entry.blocks)))
        by_torch = partial(_rotated_rows, maker, _rotation(function), (smaller, alike[0]), rows < columns)
        if turned_numbers(*alike, smaller) > SHORT:
            return by_torch
        return by_kernel(TurningTable(turnings(*alike), alike[0], smaller, transpose=rows < columns), by_torch)
    return made_by(gate.matrix, rows, columns)


def made_by(kind: Kind, rows: int, columns: int) -> Whole:
    """Return the function of a kind that makes matrices."""
    made, is_transposed = kind.made(rows, columns), kind.makes_transpose(rows, columns)
    assert made is not None, f"{kind.name} gates are no function of what they store"
    function = getattr(rotation_functions, made.function) if made.text is None else _defined(made.text)[made.function]

    def matrices(numbers: torch.Tensor) -> torch.Tensor:
        matrix: torch.Tensor = function(-numbers if made.is_negated else numbers, *made.arguments)
        return matrix.mT if is_transposed else matrix

    return matrices


@lru_cache(maxsize=64)
def _defined(text: str) -> dict[str, Any]:
    """Return what a kind's own text defines: the text that emitted files have."""
    names: dict[str, Any] = {"torch": torch}
    exec(compile(text, "<kind of gate>", "exec"), names)
    return names


def _rotated_rows(
    make: BlockMaker, rotate: Rotation, unit: tuple[int, int], is_wide: bool, angles: torch.Tensor
) -> torch.Tensor:
    """Return `[*per, angles] -> [*per, rows, columns]`.

    Rotating the first unit vectors by Q gives its first columns, as rows; by its transpose the first rows of Q.
    """
    stack = angles.reshape(math.prod(angles.shape[:-1]), angles.shape[-1])
    rows = eye(angles, *unit).expand(len(stack), *unit)
    rotated = rotate(rows, make(stack)).reshape(*angles.shape[:-1], *unit)
    return rotated if is_wide else rotated.mT


def _block_maker(maker: Maker) -> BlockMaker:
    if maker.halves:
        return partial(_blocks_of_halves, maker, [_block_maker(half) for half in maker.halves])
    return partial(_two_design_blocks, [(block.plan.leaves, contracted_pairs(block.plan)) for block in maker.programs])


def _two_design_blocks(
    blocks: Sequence[tuple[Sequence[Leaf], Sequence[Pair]]], angles: torch.Tensor
) -> list[torch.Tensor]:
    """Return the blocks of a stack of two-design circuits, `[stack, ...]`."""
    turns = ry(angles.t().flatten()).view(angles.shape[1], len(angles), 2, 2)
    signs = cz(angles, 2, 2)
    made: list[torch.Tensor] = []
    for leaves, pairs in blocks:
        gates = [leaf.gate for leaf in leaves if leaf.gate is not None]
        block = _contracted(pairs, [signs if gate.angle is None else turns[gate.angle] for gate in gates])
        is_fixed = all(gate.angle is None for gate in gates)
        made.append(block.expand(len(angles), *block.shape) if is_fixed else block)
    return made


def _blocks_of_halves(maker: Maker, halves: Sequence[BlockMaker], angles: torch.Tensor) -> list[torch.Tensor]:
    """Return cosines, sines, the blocks of V in both halves, and those of U."""
    counts = [half.angles for half in maker.halves]
    v1, v2, c, u1, u2 = torch.split(angles, [*counts, maker.pairs, *counts], dim=1)
    pairs = zip(halves, ((v1, u1), (v2, u2)), strict=True)
    both = [block for make, pair in pairs for block in make(torch.stack(pair, 1).flatten(0, 1))]
    apart = [block.view(-1, 2, *block.shape[1:]).unbind(1) for block in both]
    return [torch.cos(c / 2), torch.sin(c / 2), *(of_v for of_v, _ in apart), *(of_u for _, of_u in apart)]


# A function is called twice by the one that is made of it and another.
@lru_cache(maxsize=256)
def _rotation(function: Function) -> Rotation:
    plan = function.program.plan
    if function.is_identity:
        return lambda x, _: x
    if plan.steps:
        pairs = contracted_pairs(plan)
        shape = [plan.sizes[leg] for leg in plan.leaves[0].legs]
        order = [leaf.gate.position for leaf in plan.leaves if leaf.gate is not None]

        def contracted(x: torch.Tensor, blocks: Blocks) -> torch.Tensor:
            leaves = [x.reshape(*x.shape[:-2], *shape), *(blocks[place] for place in order)]
            return _contracted(pairs, leaves).reshape(x.shape)

        return contracted
    steps = [_step(operation, plan.sizes) for operation in function.program.operations[1:]]

    def executed(x: torch.Tensor, blocks: Blocks) -> torch.Tensor:
        values = [x]
        for step in steps:
            values += step(values, blocks)
        return values[-1]

    return executed


def _step(operation: Operation, sizes: Sequence[int]) -> Step:
    size = sizes[operation.layout[-1]]
    match operation:
        case Split(source=source, start=start):
            return lambda values, _: [values[source.value][..., start : start + size]]
        case Call(source=source, function=function, first=first):
            rotate, end = _rotation(function), first + function.blocks
            return lambda values, blocks: [rotate(values[source.value], blocks[first:end])]
        case Turn(side=0):
            return partial(_turn, operation)
        case Turn():
            return lambda values, _: []  # the first half has been turned with this one
        case Join(halves=(a, b)):
            return lambda values, _: [torch.cat([values[a.value], values[b.value]], dim=-1)]
    raise AssertionError(f"{operation} stands in no function of halves")


def _turn(turn: Turn, values: Sequence[torch.Tensor], blocks: Blocks) -> list[torch.Tensor]:
    a, b = (values[half.value] for half in turn.halves)
    cos, sin = blocks[0].unsqueeze(-2), blocks[1].unsqueeze(-2)
    (head, a), (tail, b) = (half.tensor_split([turn.pairs], dim=-1) for half in (a, b))
    if turn.back:
        first, second = cos * head + sin * tail, cos * tail - sin * head
    else:
        first, second = cos * head - sin * tail, cos * tail + sin * head
    return [torch.cat([first, a], dim=-1), torch.cat([second, b], dim=-1)]
