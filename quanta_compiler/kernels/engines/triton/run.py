"""A gate table carried out by Triton's kernels: forward in one pass, backward by stored states and gradients."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from quanta_compiler.kernels.by_parts import backward_by_parts, forward_by_parts
from quanta_compiler.kernels.engines.portable.engine import PortableTable
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Number, Tiling, number_for
from quanta_compiler.kernels.engines.triton.plans import Fit, Launch, Plan, Refusal, fitting, in_words, planned
from quanta_compiler.kernels.engines.triton.resources import tilings
from quanta_compiler.kernels.precision import Gradients, Matrices, without_autocast
from quanta_compiler.lowering.table import GateTable

Tensors = Mapping[int, torch.Tensor]
"""States or gradients, by the number of the entry."""
Factors = Mapping[str, torch.Tensor]
"""Matrices, by the names that they have in kernels."""

STORED_BYTES = 2**28
"""What backward stores at a time."""
FEWEST_TOKENS = 64
"""Tokens below which it is not worth storing."""
_PARTS = 64
"""Into how many products the gradient of a gate is cut at most, so that they fill a GPU."""
_INTERPRETED = 8
"""Tokens of a tile where numbers are computed one by one."""


def interpreting() -> bool:
    """Say whether Triton runs kernels on CPU tensors, number by number, for tests: it must be asked for twice."""
    named = os.environ.get("QUANTA_ENGINE", "").strip().lower() == "triton"
    return named and os.environ.get("TRITON_INTERPRET") == "1"


def arch_of(device: torch.device) -> int:
    """Return the compute capability of a GPU as Triton has it, 90 for 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


class _Backward(NamedTuple):
    """The kernels of a backward pass, and the entries whose matrices get a gradient."""

    states: tuple[Launch, ...]
    flow: tuple[Launch, ...]
    keep: tuple[int, ...]


class TritonTable:
    """A gate table as a `Runner`."""

    def __init__(self, table: GateTable) -> None:
        self._table = table
        self._kernels = Kernels(table)
        self._plainly = PortableTable(table)
        self._plans: dict[tuple[Kernel, Number, torch.device], Plan] = {}
        self._with_matrix = [number for number, entry in enumerate(table.entries) if entry.matrix is not None]

    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]` in the dtype of `x`."""
        found = self._forward(x, (matrices, ()))
        return self._plainly.forward(x, matrices) if found is None else found

    def in_words(self) -> str:
        """Return the kernels of the last forward pass of a new kind, or why torch carries it out."""
        plans = [plan for (kernel, *_), plan in self._plans.items() if kernel.title == "forward"]
        return in_words(plans[-1]) if plans else ""

    def forward_difference(self, x: torch.Tensor, matrices: Matrices, minus: Matrices) -> torch.Tensor:
        """Return T x - S x, rounded once: by one kernel that reads `x` once, where both fit into it."""
        found = self._forward(x, (matrices, minus))
        return forward_by_parts(self, x, matrices, minus) if found is None else found

    def _forward(self, x: torch.Tensor, sides: tuple[Matrices, Matrices]) -> torch.Tensor | None:
        table, number = self._table, number_for(x.dtype, sides)
        plan = self._plan(Kernel("forward", 0, len(table.entries), minus=bool(sides[1])), number, x.device)
        if isinstance(plan, Refusal):
            return None
        y = x.new_empty((*x.shape[:-1], table.out_features))
        ends = x.view(-1, table.in_features), y.view(-1, table.out_features)
        self._run(plan, number, ends, {}, self._as_states(sides, number))
        return y

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices, in this order."""
        found = self._backward(grad, x, (matrices, ()), needed)
        return self._plainly.backward(grad, x, matrices, needed) if found is None else found

    def backward_difference(
        self, grad: torch.Tensor, x: torch.Tensor | None, sides: tuple[Matrices, Matrices], needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices of both sides; S is usually frozen."""
        count = len(sides[0])
        found = None
        if not any(needed[1 + count :]):
            found = self._backward(grad, x, sides, needed[: 1 + count])
        if found is None:
            return backward_by_parts(self, grad, x, sides, needed)
        return found[0], [*found[1], *[None] * count]

    def _backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, sides: tuple[Matrices, Matrices], needed: Sequence[bool]
    ) -> Gradients | None:
        """Return the gradients of the input and of the matrices of the first side; None where it runs as torch does.

        States and gradients that a matrix needs are stored, of some tokens at a time: its own is a product of them.
        """
        table, number = self._table, number_for(grad.dtype, sides)
        kernels = self._backward_kernels(needed, number, grad.device, minus=bool(sides[1]))
        if kernels is None:
            return None
        given = self._as_states(sides, number)
        per_token = sum(map(self._stored_numbers, kernels.keep)) * number.states.itemsize
        chunk = max(FEWEST_TOKENS, STORED_BYTES // max(1, per_token) // FEWEST_TOKENS * FEWEST_TOKENS)
        while True:
            try:
                dx = grad.new_empty((len(grad), table.in_features)) if needed[0] else None
                sums = self._gradients(kernels, number, (grad, x, dx), given, chunk)
            except torch.OutOfMemoryError:
                if chunk == FEWEST_TOKENS:
                    return None
                chunk = max(FEWEST_TOKENS, chunk // 4 // FEWEST_TOKENS * FEWEST_TOKENS)
            else:
                return dx, [sums.get(entry) for entry in self._with_matrix]

    def _gradients(
        self,
        kernels: _Backward,
        number: Number,
        vectors: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
        matrices: Factors,
        chunk: int,
    ) -> dict[int, torch.Tensor]:
        """Write the gradient of the input, return those of the matrices by entry; `chunk` tokens at a time."""
        grad, x, dx = vectors
        shapes = {entry: self._table.entries[entry] for entry in kernels.keep}
        sums = {n: grad.new_zeros((e.blocks, e.rows, e.columns), dtype=torch.float32) for n, e in shapes.items()}
        for begin in range(0, len(grad), chunk):
            part = grad[begin : begin + chunk]
            tokens = len(part)
            empty = partial(part.new_empty, dtype=number.states)
            states = {n: empty((e.blocks, tokens, e.rest, e.columns)) for n, e in shapes.items()}
            gradients = {n: empty((e.blocks, tokens, e.rest, e.rows)) for n, e in shapes.items()}
            if x is not None and states:
                self._run(kernels.states, number, (x[begin : begin + tokens], None), states, matrices)
            found = None if dx is None else dx[begin : begin + tokens]
            self._run(kernels.flow, number, (part, found), gradients, matrices)
            for n in sums:
                sums[n] += _product(gradients[n], states[n])
        return sums

    def _backward_kernels(
        self, needed: Sequence[bool], number: Number, device: torch.device, *, minus: bool
    ) -> _Backward | None:
        """Return the kernels of a backward pass; None where a part of them does not fit."""
        count = len(self._table.entries)
        keep = tuple(entry for entry, one in zip(self._with_matrix, needed[1:], strict=True) if one)
        first = 0 if needed[0] else min(keep, default=count)
        flow = self._plan(Kernel("flow", first, count, keep, needed[0], minus and needed[0]), number, device)
        states: Plan = ()
        if keep:
            states = self._plan(Kernel("forward", 0, max(keep) + 1, keep, result=False), number, device)
        if isinstance(flow, Refusal) or isinstance(states, Refusal):
            return None
        return _Backward(states, flow, keep)

    def _run(
        self,
        plan: tuple[Launch, ...],
        number: Number,
        ends: tuple[torch.Tensor, torch.Tensor | None],
        kept: Tensors,
        matrices: Factors,
    ) -> None:
        """Launch the kernels of a plan, each on what the one before it left."""
        given, result = ends
        tokens = len(given)
        for kernel, tiling in plan if tokens else ():
            out = result
            if (kernel, tiling) != plan[-1]:
                size = self._kernels.boundary_size(kernel)
                out = given.new_empty((tokens, size), dtype=number.states)
            vectors = [given] if out is None else [given, out]
            stored = (kept[entry] for entry in kernel.keep)
            factors = (matrices[name] for name in self._kernels.matrices(kernel))
            self._kernels.launch(kernel, tiling, number, [*vectors, *stored, *factors])
            given = given if out is None else out

    def _plan(self, kernel: Kernel, number: Number, device: torch.device) -> Plan:
        key = kernel, number, device
        if key not in self._plans:
            self._plans[key] = planned(kernel, self._fit(number, device))
        return self._plans[key]

    def _fit(self, number: Number, device: torch.device) -> Fit:
        if device.type == "cuda":
            return fitting(self._kernels, number, arch_of(device))

        def interpreted(kernel: Kernel) -> Tiling | Refusal:
            found = tilings(self._table, kernel.first, kernel.last, 2 if kernel.minus else 1)
            if not found:
                return Refusal("a token is too large for a tile")
            return Tiling(min(_INTERPRETED, found[0].tokens), found[0].warps)

        return interpreted

    def _as_states(self, sides: tuple[Matrices, Matrices], number: Number) -> dict[str, torch.Tensor]:
        """Return the matrices by the names of kernels' arguments, contiguous and in the dtype of the states."""
        return {
            f"{letter}{entry}": matrix.detach().to(number.states).contiguous()
            for letter, side in zip("wu", sides, strict=True)
            for entry, matrix in zip(self._with_matrix, side, strict=False)
        }

    def _stored_numbers(self, entry: int) -> int:
        one = self._table.entries[entry]
        return one.blocks * one.rest * (one.rows + one.columns)


def _product(gradient: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Return the sums over tokens and rest of `[blocks, tokens, rest, rows]` times `[blocks, tokens, rest, columns]`.

    In float32, `[blocks, rows, columns]`, by products of parts of the tokens.
    """
    blocks, tokens, _, rows = gradient.shape
    parts = min(_PARTS, tokens & -tokens)
    left = gradient.reshape(blocks * parts, -1, rows).mT
    right = state.reshape(blocks * parts, -1, state.shape[-1])
    with without_autocast(gradient.device):
        if gradient.is_cuda and gradient.dtype != torch.float32:
            found = torch.bmm(left, right, out_dtype=torch.float32)
        else:
            found = torch.bmm(left.float(), right.float())
    return found.view(blocks, parts, rows, -1).sum(1)
