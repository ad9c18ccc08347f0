"""The backward pass in two forms: by states and gradients that are stored, or by segments that sum in registers.

Stored, the gradient of a gate is one product of the state that it read and the gradient of what it made. In segments of
one or two gates fewer numbers move: a segment reads the state in front of it, computes the others again, and sums the
gradients of its gates over the tiles of a program. Either gives the same bits every time; the form that moves fewer
numbers is taken where its kernels fit.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from quanta_compiler.kernels.engines.triton.forms import is_cheaper_in_segments
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Launch, Number
from quanta_compiler.kernels.engines.triton.launches import Factors, Launches
from quanta_compiler.kernels.engines.triton.plans import Plan, Refusal
from quanta_compiler.kernels.precision import without_autocast
from quanta_compiler.text.words import plural

STORED_BYTES = 2**28
"""What backward stores at a time."""
FEWEST_TOKENS = 64
"""Tokens below which it is not worth storing."""
_PARTS = 64
"""Into how many products the gradient of a gate is cut at most, so that they fill a GPU."""
_PROGRAMS = 2
"""Programs of a segment for each multiprocessor, which go over the tiles in turn."""

Vectors = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""The gradient of the result, the input, and where the gradient of the input goes."""
Sums = dict[int, torch.Tensor]
"""Gradients of matrices, by the number of the entry."""


class Backward(NamedTuple):
    """The kernels of a backward pass."""

    keep: tuple[int, ...]
    """The entries whose matrices get a gradient."""
    states: tuple[Launch, ...]
    """What stores the states: those that `keep` read, or those in front of segments."""
    flow: tuple[Launch, ...]
    """What takes the gradient back: all of it, or of a difference in segments that of S."""
    segments: tuple[Launch, ...] = ()

    def in_words(self) -> str:
        """Return which form it has, as a clause."""
        if self.segments:
            return f"in {plural(len(self.segments), 'segment')}"
        return "by stored states" if self.keep else f"in {plural(len(self.flow), 'kernel')}"


def backward_kernels(
    launches: Launches, needed: Sequence[bool], number: Number, grad: torch.Tensor, *, minus: bool
) -> Backward | Refusal:
    """Return the kernels that give the gradients `needed`, of the input and of matrices, or why none fit.

    `grad` is the gradient of the result, `[tokens, out_features]`.
    """
    key = *needed, number, grad.device, len(grad).bit_length(), minus
    found: Backward | Refusal | None = launches.ways_back.get(key)
    if found is None:
        found = launches.ways_back[key] = _planned(launches, needed, number, grad, minus=minus)
    return found


def _planned(
    launches: Launches, needed: Sequence[bool], number: Number, grad: torch.Tensor, *, minus: bool
) -> Backward | Refusal:
    count = len(launches.table.entries)
    keep = tuple(entry for entry, one in zip(launches.with_matrix, needed[1:], strict=True) if one)
    first = 0 if needed[0] else min(keep, default=count)

    def plan(kernel: Kernel) -> Plan:
        return launches.plan(kernel, number, grad.device, len(grad))

    both = minus and needed[0]
    if is_cheaper_in_segments(launches.table, keep, minus=both):
        cut = plan(Kernel("segment", first, count, keep, needed[0], exact=both))
        starts = () if isinstance(cut, Refusal) else tuple(sorted(one.kernel.first for one in cut if one.kernel.first))
        states = plan(Kernel("forward", 0, max(starts) + 1, starts, False)) if starts else ()
        flow = plan(Kernel("flow", 0, count, exact=True)) if both else ()
        if not (isinstance(cut, Refusal) or isinstance(states, Refusal) or isinstance(flow, Refusal)):
            return Backward(keep, states, flow, cut)
    flow = plan(Kernel("flow", first, count, keep, needed[0], minus=both))
    states = plan(Kernel("forward", 0, max(keep) + 1, keep, False)) if keep else ()
    if isinstance(flow, Refusal):
        return flow
    return states if isinstance(states, Refusal) else Backward(keep, states, flow)


class Pass:
    """A backward pass on tensors."""

    def __init__(self, launches: Launches, kernels: Backward, number: Number, factors: Factors) -> None:
        self.kernels = kernels
        self._launches, self._number, self._factors = launches, number, factors
        entries = launches.table.entries
        self._kept = {entry: entries[entry] for entry in kernels.keep}
        self._starts = {one.kernel.first: entries[one.kernel.first] for one in kernels.segments if one.kernel.first}

    def bytes_per_token(self) -> int:
        """Return what is stored for a token."""
        if self.kernels.segments:
            numbers = sum(2 * one.blocks * one.rest * one.columns for one in self._starts.values())
        else:
            numbers = sum(one.blocks * one.rest * (one.rows + one.columns) for one in self._kept.values())
        return numbers * self._number.states.itemsize

    def run(self, vectors: Vectors, chunk: int) -> Sums:
        """Write the gradient of the input, return those of the matrices; `chunk` tokens at a time."""
        grad, x, dx = vectors
        shapes = {n: (e.blocks, e.rows, e.columns) for n, e in self._kept.items()}
        sums = {n: grad.new_zeros(shape, dtype=torch.float32) for n, shape in shapes.items()}
        part_of = self._segments if self.kernels.segments else self._stored
        for begin in range(0, len(grad), chunk):
            rows = slice(begin, begin + chunk)
            found = part_of((grad[rows], None if x is None else x[rows], None if dx is None else dx[rows]))
            for n, one in found.items():
                sums[n] += one.view(shapes[n])
        return sums

    def _stored(self, vectors: Vectors) -> Sums:
        grad, x, dx = vectors
        tokens, empty = len(grad), partial(grad.new_empty, dtype=self._number.states)
        states = {n: empty((e.blocks, tokens, e.rest, e.columns)) for n, e in self._kept.items()}
        gradients = {n: empty((e.blocks, tokens, e.rest, e.rows)) for n, e in self._kept.items()}
        if x is not None and states:
            self._launches.run(self.kernels.states, self._number, (x, None), states, self._factors)
        self._launches.run(self.kernels.flow, self._number, (grad, dx), gradients, self._factors)
        return {n: _product(gradients[n], states[n]) for n in self._kept}

    def _segments(self, vectors: Vectors) -> Sums:
        flow, x, dx = vectors
        assert x is not None, "a gradient of a matrix needs the input"
        tokens, launches, number = len(flow), self._launches, self._number
        empty = partial(flow.new_empty, dtype=number.states)
        states = {n: empty((e.blocks, tokens, e.rest, e.columns)) for n, e in self._starts.items()}
        launches.run(self.kernels.states, number, (x, None), states, self._factors)
        grad, programs = flow, _programs(flow.device)
        found: Sums = {}
        for launch in self.kernels.segments:
            kernel = launch.kernel
            out = launches.boundary(kernel, flow, number) if kernel.first else dx
            # The two sides of a difference are rounded once, together.
            own = empty(dx.shape) if out is dx is not None and self.kernels.flow else out
            sizes = [launches.kernels.sums(n) * self._numbers(n) for n in kernel.keep]
            count = min(programs, launch.tiles(tokens))
            sums = flow.new_empty((count, sum(sizes)), dtype=torch.float32)
            ends = [states.get(kernel.first, x), flow, *([own] if own is not None and kernel.result else []), sums]
            matrices = (self._factors[name] for name in launches.kernels.matrices(kernel))
            launches.launch(launch, number, tokens, count, [*ends, *matrices])
            for n, one in zip(kernel.keep, torch.split_with_sizes(sums.sum(0), sizes), strict=True):
                found[n] = one.view(-1, self._numbers(n)).sum(0)
            flow = own if own is not None else flow
        if dx is not None and self.kernels.flow:
            other = empty(dx.shape)
            minus = {f"w{name[1:]}": one for name, one in self._factors.items() if name[0] == "u"}
            launches.run(self.kernels.flow, number, (grad, other), {}, minus)
            torch.sub(flow, other, out=dx) if dx.dtype == flow.dtype else dx.copy_(flow - other)
        return found

    def _numbers(self, entry: int) -> int:
        one = self._kept[entry]
        return one.blocks * one.rows * one.columns


def _programs(device: torch.device) -> int:
    """Return how many programs of a segment there are at most: the same for a device every time."""
    if device.type != "cuda":
        return _PROGRAMS
    return _PROGRAMS * int(torch.cuda.get_device_properties(device).multi_processor_count)


def _product(gradient: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Return the sums over tokens and rest of `[blocks, tokens, rest, rows]` times `[blocks, tokens, rest, columns]`.

    In float32, `[blocks, rows, columns]`, by products of parts of 32 lines or more.
    """
    blocks, tokens, rest, rows = gradient.shape
    # A line is a token and a place of the rest: of an odd number of tokens the rest still gives even parts, and it is
    # large where the matrix is small. What a part begins with is aligned as rows and columns are, not as tokens.
    lines = tokens * rest
    parts = min(_PARTS, lines & -lines, 1 << max(0, lines.bit_length() - 6))
    left = gradient.reshape(blocks * parts, -1, rows).mT
    right = state.reshape(blocks * parts, -1, state.shape[-1])
    with without_autocast(gradient.device):
        if gradient.is_cuda and gradient.dtype != torch.float32:
            found = torch.bmm(left, right, out_dtype=torch.float32)
        else:
            found = torch.bmm(left.float(), right.float())
    return found.view(blocks, parts, rows, -1).sum(1)
