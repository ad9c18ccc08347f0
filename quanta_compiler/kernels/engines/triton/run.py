"""A gate table carried out by Triton's kernels."""

from collections.abc import Callable, Sequence

import torch

from quanta_compiler.kernels.by_parts import ByParts, Tilings
from quanta_compiler.kernels.engines.portable.engine import PortableTable
from quanta_compiler.kernels.engines.triton.backward import (
    FEWEST_TOKENS,
    STORED_BYTES,
    Backward,
    Pass,
    backward_kernels,
)
from quanta_compiler.kernels.engines.triton.kernel import Kernel, number_for
from quanta_compiler.kernels.engines.triton.launches import LaunchError, Launches, aligned
from quanta_compiler.kernels.engines.triton.plans import Refusal, in_words
from quanta_compiler.kernels.precision import Gradients, Matrices
from quanta_compiler.lowering.table import GateTable


class TritonTable(ByParts):
    """A gate table as a `Runner`."""

    def __init__(self, table: GateTable) -> None:
        self._table = table
        self._launches = Launches(table)
        self._plainly = PortableTable(table)
        self._way_back: Backward | Refusal | None = None

    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]` in the dtype of `x`."""
        found = self._forward(x, (matrices, ()))
        return self._plainly.forward(x, matrices) if found is None else found

    def in_words(self) -> str:
        """Return the kernels of the last forward pass of a new kind, and the form of the last backward pass.

        Where torch carries one out, why.
        """
        plans = [plan for (kernel, *_), plan in tuple(self._launches.plans.items()) if kernel.title == "forward"]
        ways = [in_words(plans[-1])] if plans else []
        back = self._way_back
        if back is not None:
            ways.append(f"backward {in_words(back) if isinstance(back, Refusal) else back.in_words()}")
        return ", ".join(ways)

    def tune(self, seconds: Callable[[], float]) -> Tilings:
        """Try the tilings of what a step launches, and keep the fastest."""
        return self._launches.tune(seconds)

    def choose(self, device: torch.device, tilings: Tilings) -> None:
        """Keep what `tune` has found on a device."""
        self._launches.choose(device, tilings)

    def forward_difference(self, x: torch.Tensor, matrices: Matrices, minus: Matrices) -> torch.Tensor:
        """Return T x - S x, rounded once: by one kernel that reads `x` once, where both fit into it."""
        found = self._forward(x, (matrices, minus))
        return super().forward_difference(x, matrices, minus) if found is None else found

    def _forward(self, x: torch.Tensor, sides: tuple[Matrices, Matrices]) -> torch.Tensor | None:
        table, number = self._table, number_for(x.dtype, sides)
        y = x.new_empty((*x.shape[:-1], table.out_features))
        ends = aligned(x).view(-1, table.in_features), y.view(-1, table.out_features)
        whole = Kernel("forward", 0, len(table.entries), minus=bool(sides[1]))
        plan = self._launches.plan(whole, number, x.device, len(ends[0]))
        if isinstance(plan, Refusal):
            return None
        try:
            self._launches.run(plan, number, ends, {}, self._launches.factors(sides, number))
        except LaunchError:
            return None
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
            return super().backward_difference(grad, x, sides, needed)
        return found[0], [*found[1], *[None] * count]

    def _backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, sides: tuple[Matrices, Matrices], needed: Sequence[bool]
    ) -> Gradients | None:
        """Return the gradients of the input and of the matrices of the first side; None where it runs as torch does."""
        number = number_for(grad.dtype, sides)
        kernels = backward_kernels(self._launches, needed, number, grad, minus=bool(sides[1]))
        if isinstance(kernels, Refusal):
            self._way_back = kernels
            return None
        work = Pass(self._launches, kernels, number, self._launches.factors(sides, number))
        found = self._in_chunks(work, grad, x, of_x=needed[0])
        self._way_back = found if isinstance(found, Refusal) else kernels
        return None if isinstance(found, Refusal) else found

    def _in_chunks(self, work: Pass, grad: torch.Tensor, x: torch.Tensor | None, *, of_x: bool) -> Gradients | Refusal:
        """Run a backward pass on as many tokens at a time as there is memory for."""
        most = min(len(grad), STORED_BYTES // max(1, work.bytes_per_token()))
        chunk = FEWEST_TOKENS * max(1, -(-most // FEWEST_TOKENS))
        grad, x = aligned(grad), None if x is None else aligned(x)
        while chunk:
            try:
                dx = grad.new_empty((len(grad), self._table.in_features)) if of_x else None
                sums = work.run((grad, x, dx), chunk)
            except LaunchError:
                return Refusal("a kernel cannot be launched", failed=True)
            except torch.OutOfMemoryError:
                # Tried again behind this block: the error holds all that was stored as long as it is handled.
                smaller = max(FEWEST_TOKENS, chunk // 4 // FEWEST_TOKENS * FEWEST_TOKENS)
                chunk = 0 if chunk == FEWEST_TOKENS else smaller
            else:
                return dx, [sums.get(entry) for entry in self._launches.with_matrix]
        return Refusal(f"there is no memory for the states of {FEWEST_TOKENS} tokens")
