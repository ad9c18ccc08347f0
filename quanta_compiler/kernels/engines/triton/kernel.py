"""What is launched: kernels as values, their source, and the functions that Triton makes of it."""

import hashlib
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from quanta_compiler.kernels.engines.triton.source import HEAD, flow_source, forward_source, segment_source
from quanta_compiler.kernels.engines.triton.writer import Writer
from quanta_compiler.kernels.precision import Matrices
from quanta_compiler.lowering.table import GateTable

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the entries `[first, last)` of a table; see source.py."""

    name: str
    """`forward`, `flow` or `segment`."""
    first: int
    last: int
    keep: Numbers = ()
    """Entries whose state or gradient is stored, or whose matrix gets a gradient (`segment`)."""
    result: bool = True
    """Whether what comes out at the end is stored."""
    minus: bool = False
    """Whether what the same entries make with other matrices is subtracted from it; only of a whole circuit."""
    exact: bool = False
    """Whether the gradient of the input has the dtype of states: one of two, whose difference is rounded once."""

    @property
    def title(self) -> str:
        """Return what its function is called: `forward`, `states` where it stores some, or `flow`."""
        return "states" if self.name == "forward" and self.keep else self.name

    @property
    def alive(self) -> int:
        """Return how many states of a token are in registers at once, with what is summed beside them."""
        return 4 if self.name == "segment" else 2 if self.minus else 1

    def part(self, first: int, last: int) -> "Kernel":
        """Return the kernel of some of its entries; what is handed to the next one is a result too."""
        keep = tuple(number for number in self.keep if first <= number < last)
        ends = last == self.last if self.name == "forward" else first == self.first
        return replace(self, first=first, last=last, keep=keep, result=self.result or not ends)


class Tiling(NamedTuple):
    """How a kernel is launched: tokens of a tile, and the warps that hold it in their registers."""

    tokens: int
    warps: int


class Launch(NamedTuple):
    """A kernel of a plan and how it is launched."""

    kernel: Kernel
    tiling: Tiling

    def tiles(self, tokens: int) -> int:
        """Return the tiles of that many tokens."""
        return -(-tokens // self.tiling.tokens)


@dataclass(frozen=True, slots=True)
class Number:
    """The dtypes of a launch."""

    vectors: torch.dtype
    """Of the input and the result."""
    states: torch.dtype
    """Of matrices, of what lies between two kernels or is stored for backward, and of everything in registers."""
    precision: str
    """Of products of float32: Triton's `tf32`, or `tf32x3`, which is as good as float32."""


def number_for(vectors: torch.dtype, sides: tuple[Matrices, Matrices]) -> Number:
    """Return the dtypes for vectors and matrices.

    The states are in float32, and rounded once at the end, where the matrices are more precise than the vectors, and
    where a difference is made of them. Products of float32 vectors are as exact as torch's are told to be
    (`torch.set_float32_matmul_precision`, `torch.backends.cuda.matmul.fp32_precision`).
    """
    own, minus = sides
    is_exact = bool(minus) or any(matrix.dtype != vectors for matrix in own)
    # `torch.get_float32_matmul_precision` raises where this one was set.
    wants_exact = vectors == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32"
    return Number(vectors, torch.float32 if is_exact else vectors, "tf32x3" if wants_exact else "tf32")


_WRITERS: dict[str, Callable[..., str]] = {
    "forward": forward_source,
    "flow": flow_source,
    "segment": segment_source,
}


class Kernels:
    """The kernels of a table: their sources, and the functions that Triton makes of them, each made once."""

    def __init__(self, table: GateTable) -> None:
        self.table = table
        self._functions: dict[Kernel, Any] = {}

    def source(self, kernel: Kernel) -> str:
        """Return the text of a kernel, a module that Triton can read."""
        minus = {"minus": True} if kernel.minus else {}
        write = _WRITERS[kernel.name]
        text = write(self.table, kernel.first, kernel.last, kernel.keep, result=kernel.result, **minus)
        return f"{HEAD}\n\n{text}"

    def matrices(self, kernel: Kernel) -> list[str]:
        """Return the names of the matrices that are a kernel's last arguments, in order."""
        # The first gradient need not go through its gate where nobody wants what comes out.
        skipped = kernel.first if kernel.name == "flow" and not kernel.result else None
        entries = self.table.entries
        numbers = range(kernel.first, kernel.last)
        own = [f"w{n}" for n in numbers if entries[n].matrix is not None and n != skipped]
        return own + [f"u{name[1:]}" for name in own if kernel.minus]

    def sums(self, entry: int) -> int:
        """Return how many sums the gradient of an entry has in a program of a `segment`."""
        return Writer(self.table).sums(entry)

    def boundary_size(self, kernel: Kernel) -> int:
        """Return the numbers of a token in what a kernel hands to the next one."""
        number = kernel.last if kernel.name == "forward" else kernel.first
        entry = self.table.entries[number - 1]
        return entry.blocks * entry.rest * entry.rows

    def function(self, kernel: Kernel) -> Any:
        """Return Triton's function of a kernel."""
        if kernel not in self._functions:
            self._functions[kernel] = _function(kernel.title, self.source(kernel))
        return self._functions[kernel]

    def launch(
        self, launch: Launch, number: Number, tokens: int, programs: int, tensors: Sequence[torch.Tensor]
    ) -> None:
        """Run a kernel with a number of programs, on tensors in the order of its arguments."""
        kernel, tiling = launch
        options = {"num_warps": tiling.warps, "num_stages": 1}
        self.function(kernel)[(programs,)](*tensors, tokens, **constants(tiling, number), **options)


def constants(tiling: Tiling, number: Number) -> dict[str, Any]:
    """Return what is fixed when a kernel is compiled, by the names of its arguments."""
    import triton.language as tl

    state = getattr(tl, str(number.states).removeprefix("torch."))
    return {"T": tiling.tokens, "STATE": state, "PRECISION": number.precision}


def _function(name: str, source: str) -> Any:
    file = f"<quanta-compiler {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    # Triton reads a function's source by way of its file; a line cache without a time is never looked up on a disk.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": file}
    exec(compile(source, file, "exec"), names)
    return names[name]
