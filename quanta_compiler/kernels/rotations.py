"""The matrices of rotations for the kernel: computed from stored angles in few calls of torch, differentiable.

Blocks of RY and CZ are contracted in an order that is searched once, from the matrices of all RY of a circuit, which
one call computes. `orthogonal` gates are what rotation_functions.py makes of them. A `pauli` gate that the table takes
as a whole is applied to the first rows of an identity matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import TRAINED_KINDS
from quanta_compiler.kernels.library import matrix_dtype, without_autocast
from quanta_compiler.lowering.table import TableEntry
from quanta_compiler.planner.assembly import searched
from quanta_compiler.planner.cost import results
from quanta_compiler.planner.leaves import gate_leaves
from quanta_compiler.planner.pauli import plan_pauli
from quanta_compiler.planner.plan import Leaf, PauliPlan
from quanta_compiler.rotation_functions import cayley, cz, exponential, eye, ry

Lookup = Callable[[str, str], torch.Tensor]
"""Returns a stored tensor by its gate and part: "" the matrix, `A` and `B` the factors, `value` of a constant gate."""
Numbers = Mapping[str, torch.Tensor]
Turns = Callable[[Gate], torch.Tensor]
"""Returns the matrices of an RY or the signs of a CZ."""


class Rotations:
    """What computes the matrices of those entries of a table that are rotations."""

    def __init__(self, entries: Sequence[TableEntry]) -> None:
        self._wholes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
        self._entries: list[_Block | Gate] = []
        self._angles: dict[str, int] = {}
        """How many angles a gate of RY matrices stores, by its name."""
        for entry in entries:
            assert entry.matrix is not None
            self._take(entry, entry.matrix.gate, entry.matrix.sizes)
        counts = self._angles.values()
        self._first = dict(zip(self._angles, accumulate(counts, initial=0), strict=False))

    def _take(self, entry: TableEntry, gate: Gate, sizes: tuple[int, ...]) -> None:
        if gate.kind in ("orthogonal", "pauli"):
            self._wholes.setdefault(gate.parameter, _whole(gate, entry))
            self._entries.append(gate)
            return
        for part in gate.parts or (gate,):
            pass
        self._entries.append(_Block(gate, sizes))
