"""The plan: in which order the leaves of a circuit's network are contracted, and what each step costs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Gate


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor that exists before the first step, its legs slowest first as it is stored.

    Sources: `input` (the batch of vectors), `gate` (a gate's matrix or diagonal), `factor_b` and `factor_a` (the
    factors of a low-rank gate), `angles` (what a `call` turns by, without legs), `one` (a scalar, where an
    operator begins with nothing to contract). The matrix of a rotation is computed from what is stored.
    """

    source: str
    legs: tuple[int, ...]
    gate: Gate | None = None
    pauli: PauliPlan | None = None
    """How the matrix of a `pauli` gate is made, by applying it to the first rows of an identity matrix.

    For a block of one it has only what makes the blocks.
    """


@dataclass(frozen=True, slots=True)
class Step:
    """One step in single-assignment form: tensor `len(leaves) + i` is made by step `i` from earlier ones.

    Operations: `contract` (two tensors; no leg summed makes it an elementwise product), `reshape` (the legs `axes`, the
    columns of `gate`, become its rows by reshaping, cutting or padding), `call` (likewise by a rotation, applied as
    `pauli` says, by the angles that are its second input), `tie` (a leg that no gate contracts is written out as an
    identity: `axes` is its input side and the new output side).
    """

    op: str
    inputs: tuple[int, ...]
    legs: frozenset[int]
    flops: int
    gate: Gate | None = None
    axes: tuple[int, ...] = ()
    pauli: PauliPlan | None = None


Alike = tuple[int, int, int | None]
"""What `pauli` gates have in common that have the same blocks: their size, layers and K'."""


@dataclass(frozen=True, slots=True)
class PartBlocks:
    """How the blocks of a power of two are made: a circuit of RY and CZ, each block a small network of some of them."""

    size: int
    layers: int
    kept: int | None
    stack: int
    """How many matrices of the size there are, in all `pauli` gates that are alike."""
    plans: tuple[Plan, ...]
    """One for each block: a tensor with the stack in front, if the block has an RY."""


@dataclass(frozen=True, slots=True)
class PauliPart:
    """How the orthogonal matrix of a power of two is applied: a circuit of dense blocks with a plan of its own."""

    size: int
    plan: Plan | None = None
    """None where there is nothing to apply: an orthogonal matrix of size 1."""


@dataclass(frozen=True, slots=True)
class PauliPlan:
    """How the orthogonal matrix of a `pauli` gate is applied to `count` vectors without being written out.

    A size is the sum of its powers of two: what has two halves applies each of them twice, with a rotation between.
    """

    size: int
    layers: int
    kept: int | None
    transpose: bool
    count: int
    flops: int
    """Of all vectors together, the blocks being there."""
    parts: tuple[PauliPart, ...] = ()
    """One for each power of two, the largest first. None in what only counts, and for a block of a gate."""
    blocks: tuple[PartBlocks, ...] = ()
    """How they are made, for all gates that are alike at once; none in what only counts.

    A size is the sum of its powers of two, each twice as often as what it is a half of (Quantum-PEFT, eq. (4)).
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one mode of a circuit, leading to the legs `output` in that order."""

    tokens: int
    """The batch that the plan was made for; 1 for an operator."""
    batch: int | None
    """The leg of the batch; None for an operator."""
    leaves: tuple[Leaf, ...]
    steps: tuple[Step, ...]
    output: tuple[int, ...]
    rows: int
    """How many legs of `output` are the first dimension of the result: the batch, or a matrix's rows."""
    sizes: tuple[int, ...]
    labels: tuple[str, ...]
    """What each leg is called in comments: its axis, `n` the batch, `r` a rank, `axis'` an operator's input side."""
    optimizer: str = ""
    """What found the order: an opt_einsum optimizer, `windows` (`dp` over runs of gates) or `sequential`.

    Several are joined by `+` where slices split the circuit; `blocks+` in front where a pass has merged gates first.
    """
    sequential_flops: int = 0
    """What gate by gate, in the order of the file, would cost."""
    whole_sizes: tuple[int, ...] = ()
    """The sizes that legs have in their gates, where a loop goes over chunks of one of them."""

    def size(self, legs: Iterable[int]) -> int:
        """Return the product of the sizes of some legs."""
        return math.prod([self.sizes[leg] for leg in legs])

    def gate_size(self, legs: tuple[int, ...]) -> int:
        """Return the product of the sizes that some legs have in their gates."""
        sizes = self.whole_sizes or self.sizes
        return math.prod(sizes[leg] for leg in legs)

    @property
    def flops(self) -> int:
        """Return the FLOPs of all steps, a multiply-add being two."""
        return sum(step.flops for step in self.steps)

    def in_words(self, legs: tuple[int, ...]) -> str:
        """Return legs for comments: `axis:size`, the batch as `n`, bits of an axis in a row as `axis.0-3:16`."""
        runs: list[list[int]] = []
        for leg in legs:
            axis, bit, side = self._bit(leg)
            if runs and bit is not None and self._bit(runs[-1][-1]) == (axis, bit - 1, side):
                runs[-1].append(leg)
            else:
                runs.append([leg])
        return " ".join("n" if run == [self.batch] else self._run_in_words(run) for run in runs)

    def _bit(self, leg: int) -> tuple[str, int | None, str]:
        """Return the axis of a leg, which of its bits it is, if it is one, and the mark of an operator's input side."""
        axis, _, rest = self.labels[leg].partition(".")
        return (axis, int(rest.rstrip("'")), rest.lstrip("0123456789")) if rest else (axis, None, "")

    def _run_in_words(self, run: list[int]) -> str:
        axis, last, side = self._bit(run[-1])
        label = self.labels[run[0]] if len(run) == 1 else f"{axis}.{self._bit(run[0])[1]}-{last}{side}"
        return f"{label}:{self.size(run)}"

    @property
    def closing_ties(self) -> tuple[Step, ...]:
        """Return the steps at the end that only write identities out."""
        count = next((i for i, step in enumerate(reversed(self.steps)) if step.op != "tie"), len(self.steps))
        return self.steps[len(self.steps) - count :]

    def legs(self, tensor: int) -> frozenset[int]:
        """Return the legs of a leaf or of a step's result."""
        if tensor < len(self.leaves):
            return frozenset(self.leaves[tensor].legs)
        return self.steps[tensor - len(self.leaves)].legs
