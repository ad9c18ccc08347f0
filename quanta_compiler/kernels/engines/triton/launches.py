"""The kernels of a table planned for a device, and launched one after the other."""

import os
import warnings
from collections.abc import Mapping, Sequence

import torch

from quanta_compiler.kernels.engines.triton.architectures import SHARED
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Launch, Number, Tiling
from quanta_compiler.kernels.engines.triton.plans import Fit, Plan, Refusal, fitting, planned, segments
from quanta_compiler.kernels.engines.triton.resources import one_line, tilings
from quanta_compiler.kernels.precision import Matrices
from quanta_compiler.lowering.table import GateTable

Tensors = Mapping[int, torch.Tensor]
"""States or gradients, by the number of the entry."""
Factors = Mapping[str, torch.Tensor]
"""Matrices, by the names that they have in kernels."""

_INTERPRETED = 8
"""Tokens of a tile where numbers are computed one by one."""
_ALIGNED = 16
"""Bytes, of which addresses are multiples in what resources.py compiles; Triton would compile for others anew."""


def interpreting() -> bool:
    """Say whether Triton runs kernels on CPU tensors, number by number, for tests: it must be asked for twice."""
    named = os.environ.get("QUANTA_ENGINE", "").strip().lower() == "triton"
    return named and os.environ.get("TRITON_INTERPRET") == "1"


def arch_of(device: torch.device) -> int:
    """Return the compute capability of a GPU as Triton has it, 90 for 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


class LaunchError(Exception):
    """A kernel that fits could not be launched; its plan is a refusal from now on, and the user is told."""


class Launches:
    """Plans by kernel, dtypes and device, each made once; and what carries them out."""

    def __init__(self, table: GateTable) -> None:
        self.table = table
        self.kernels = Kernels(table)
        self.plans: dict[tuple[Kernel, Number, torch.device], Plan] = {}
        self.with_matrix = [number for number, entry in enumerate(table.entries) if entry.matrix is not None]
        self._told = False

    def plan(self, kernel: Kernel, number: Number, device: torch.device) -> Plan:
        """Return the kernels to launch in place of one that may be too large; those of a `segment` are segments."""
        key = kernel, number, device
        if key not in self.plans:
            fit = self._fit(number, device)
            plan = segments(kernel, fit) if kernel.name == "segment" else planned(kernel, fit)
            self.plans[key] = plan
            if isinstance(plan, Refusal) and plan.failed and kernel.name != "segment":
                self._tell(f"compiled, torch computes it instead: {plan.reason}")
        return self.plans[key]

    def _tell(self, what: str) -> None:
        if self._told:
            return
        self._told = True
        warnings.warn(
            f"quanta-compiler: a circuit's kernel could not be {what}\n"
            "hint: QUANTA_ENGINE=portable turns kernels off without this warning",
            RuntimeWarning,
            stacklevel=3,
        )

    def _fit(self, number: Number, device: torch.device) -> Fit:
        if device.type == "cuda":
            arch = arch_of(device)
            if arch not in SHARED:
                return lambda _: Refusal(f"the GPU is sm_{arch}, for which no kernels are made")
            return fitting(self.kernels, number, arch)

        def interpreted(kernel: Kernel) -> Tiling | Refusal:
            found = tilings(self.table, kernel.first, kernel.last, kernel.alive)
            if not found:
                return Refusal("a token is too large for a tile")
            return Tiling(min(_INTERPRETED, found[0].tokens), found[0].warps)

        return interpreted

    def factors(self, sides: tuple[Matrices, Matrices], number: Number) -> dict[str, torch.Tensor]:
        """Return the matrices by the names of kernels' arguments, contiguous and in the dtype of the states."""
        return {
            f"{letter}{entry}": aligned(matrix.detach().to(number.states).contiguous())
            for letter, side in zip("wu", sides, strict=True)
            for entry, matrix in zip(self.with_matrix, side, strict=False)
        }

    def run(
        self,
        plan: tuple[Launch, ...],
        number: Number,
        ends: tuple[torch.Tensor, torch.Tensor | None],
        kept: Tensors,
        factors: Factors,
    ) -> None:
        """Launch kernels, each on what the one before it left: from the first of `ends` to the second, where it is."""
        given, result = ends
        tokens = len(given)
        for launch in plan if tokens else ():
            out = result if launch == plan[-1] else self.boundary(launch.kernel, given, number)
            vectors = [given] if out is None else [given, out]
            stored = (kept[entry] for entry in launch.kernel.keep)
            matrices = (factors[name] for name in self.kernels.matrices(launch.kernel))
            self.launch(launch, number, tokens, launch.tiles(tokens), [*vectors, *stored, *matrices])
            given = given if out is None else out

    def launch(
        self, launch: Launch, number: Number, tokens: int, programs: int, tensors: Sequence[torch.Tensor]
    ) -> None:
        """Run a kernel on the device of its tensors.

        Raises:
            LaunchError: it could not be launched, whatever its compilation promised.

        """
        try:
            # Triton launches on the current device, which need not be that of the tensors.
            with torch.cuda.device(tensors[0].get_device()):
                self.kernels.launch(launch, number, tokens, programs, tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if interpreting():
                raise
            refusal = Refusal(f"a kernel cannot be launched ({one_line(error)})", failed=True)
            for key, plan in list(self.plans.items()):
                if key[1:] == (number, tensors[0].device) and not isinstance(plan, Refusal) and launch in plan:
                    self.plans[key] = refusal
            self._tell(f"launched, torch computes it instead: {one_line(error)}")
            raise LaunchError from error

    def boundary(self, kernel: Kernel, like: torch.Tensor, number: Number) -> torch.Tensor:
        """Return memory for what a kernel hands to the next one."""
        return like.new_empty((len(like), self.kernels.boundary_size(kernel)), dtype=number.states)


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor at an address for which kernels are compiled: a slice may begin anywhere."""
    return tensor.clone() if tensor.data_ptr() % _ALIGNED else tensor
