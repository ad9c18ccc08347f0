"""What a kernel needs of a GPU, read from what Triton compiles for it; the GPU need not be there."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.kernels.engines.triton.architectures import SHARED, TENSOR_COLUMNS
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Number, Tiling, constants
from quanta_compiler.kernels.engines.triton.tiles import Sizes
from quanta_compiler.kernels.engines.triton.writer import Writer
from quanta_compiler.lowering.table import GateTable

TILES = ((32768, 8), (16384, 8), (8192, 8), (8192, 4), (4096, 4), (2048, 4))
"""Numbers of a tile, and warps: what is tried, the largest first, which reads the matrices least often."""
_MOST_TOKENS = 64
_LARGEST_TILE = 2**20
"""Triton's own limit."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one program of a compiled kernel takes."""

    registers: int
    """Of a thread."""
    spilled: int
    """Bytes of stack that a thread has for want of registers."""
    shared: int
    """Bytes of shared memory."""
    matrix_instructions: int
    """How many instructions of the matrix units stand in its code."""
    tensor_columns: int = 0
    """Columns of tensor memory, in which newer matrix units have their sums."""

    def fits(self, arch: int) -> bool:
        """Say whether it runs well on an architecture: nothing spilled, and memory enough on the multiprocessor."""
        has_memory = self.shared <= SHARED[arch] * 1024 and self.tensor_columns <= TENSOR_COLUMNS
        return self.spilled == 0 and has_memory


def tilings(table: GateTable, kernel: Kernel) -> tuple[Tiling, ...]:
    """Return the tilings to try for a kernel, the most tokens first."""
    largest = largest_state(table, kernel.first, kernel.last) * kernel.alive
    found = {Tiling(min(_MOST_TOKENS, numbers // largest), warps): None for numbers, warps in TILES}
    fewest = Writer(table).fewest_tokens(kernel.keep) if kernel.name == "segment" else 1
    return tuple(tiling for tiling in found if tiling.tokens >= fewest)


def largest_state(table: GateTable, first: int, last: int) -> int:
    """Return the numbers of the largest state of a token, with its padding."""
    sizes = Sizes(table.sizes)
    ends = [table.inputs] if first == 0 else []
    ends += [table.outputs] if last == len(table.entries) else []
    states = [entry.legs for entry in table.entries[first:last]]
    sides = (side for legs in states for side in (legs.columns, legs.rows))
    owners = (legs.per + legs.rest for legs in states for _ in range(2))
    volumes = [sizes.padded(kept + side) for kept, side in zip(owners, sides, strict=True)]
    return max([*volumes, *map(sizes.padded, ends)], default=1)


def matrix_bytes(table: GateTable, first: int, last: int, number: Number) -> int:
    """Return the bytes of the largest matrix as a tile: a product has it in shared memory whole."""
    sizes = Sizes(table.sizes)
    volumes = (
        sizes.padded(legs.per + legs.rows + legs.columns)
        for legs in (entry.legs for entry in table.entries[first:last])
    )
    return max(volumes, default=0) * number.states.itemsize


def resources(kernels: Kernels, kernel: Kernel, tiling: Tiling, number: Number, arch: int) -> Resources | str:
    """Compile a kernel for an architecture; return what it needs, or in one line why Triton cannot compile it."""
    try:
        compiled = _compiled(kernels, kernel, tiling, number, arch)
    except Exception as error:
        return one_line(error)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        try:
            usage = dict(re.findall(r"(REG|STACK):(\d+)", _tool("cuobjdump", "--dump-resource-usage", cubin)))
            counts = _instructions(_tool("nvdisasm", "-c", cubin))
        except (OSError, subprocess.CalledProcessError) as error:
            return f"its needs cannot be read: {error}"
    matrix = sum(count for name, count in counts.items() if name.endswith("MMA"))
    taken = compiled.metadata
    # What takes more columns than there are compiles, to nothing but a trap.
    columns = getattr(taken, "tmem_size", None) or 0
    return Resources(int(usage["REG"]), int(usage["STACK"]), int(taken.shared), matrix, int(columns))


NOT_INSTALLED = "is not installed"


def import_problem() -> str | None:
    """Return why Triton cannot be imported, as what is said of it."""
    try:
        import triton
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return NOT_INSTALLED
        return f"cannot be imported ({one_line(error)})"
    except Exception as error:  # as where a library of its own does not load
        return f"cannot be imported ({one_line(error)})"
    # As where a folder beside a user's script has this name.
    return None if hasattr(triton, "__version__") else "is another module of this name"


def one_line(error: Exception) -> str:
    """Return the kind of an error and the last line that it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")


def _compiled(kernels: Kernels, kernel: Kernel, tiling: Tiling, number: Number, arch: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    made = kernels.function(kernel)
    types = dict(argument_types(kernel, len(kernels.table.entries), made.arg_names, number))
    signature = {name: types.get(name, "constexpr") for name in made.arg_names}
    places = {name: (place,) for place, name in enumerate(made.arg_names)}
    source = ASTSource(
        fn=made,
        signature=signature,
        constexprs={places[name]: value for name, value in constants(tiling, number).items()},
        attrs={places[name]: [["tt.divisibility", 16]] for name in types if name != "tokens"},
    )
    options = {"num_warps": tiling.warps, "num_stages": 1}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


def argument_types(kernel: Kernel, count: int, names: list[str], number: Number) -> Iterator[tuple[str, str]]:
    """Yield the arguments with a type of their own; matrices and what is stored have the dtype of states."""
    of_input = number.vectors if kernel.first == 0 else number.states
    of_output = number.vectors if kernel.last == count else number.states
    ends = {"x": of_input, "dx": number.states if kernel.exact else of_input, "y": of_output, "dy": of_output}
    yield "tokens", "i32"
    if "sums" in names:
        yield "sums", POINTERS[torch.float32]
    for name in names:
        if name != "sums" and (name in ends or name[0] in "sewu"):
            yield name, POINTERS[ends.get(name, number.states)]


TOOLS = ("ptxas", "cuobjdump", "nvdisasm")
"""What Triton's wheel brings to assemble a kernel and to look into it."""


def tool_path(name: str) -> Path:
    """Return where Triton has one of its tools."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


def _tool(name: str, *arguments: object) -> str:
    """Run one of the tools that Triton's wheel brings."""
    done = subprocess.run([tool_path(name), *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout


_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


def _instructions(code: str) -> Counter[str]:
    return Counter(_INSTRUCTION.findall(code))
