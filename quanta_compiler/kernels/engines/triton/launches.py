"""The kernels of a table planned for a device, and launched one after the other."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from quanta_compiler.kernels.by_parts import Tilings
from quanta_compiler.kernels.engines.triton.architectures import SHARED
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Launch, Number, Tiling
from quanta_compiler.kernels.engines.triton.plans import Fit, Plan, Refusal, choices, fitting, planned, segments
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


class Place(NamedTuple):
    """Where a kernel is launched: what it is, the dtypes, the device, and a bucket of token counts."""

    kernel: Kernel
    number: Number
    device: torch.device
    bucket: int

    @property
    def name(self) -> str:
        """Return it without the device, the same in every process."""
        return f"{self.kernel} {self.number} {self.bucket}"


class LaunchError(Exception):
    """A kernel that fits could not be launched; its plan is a refusal from now on, and the user is told."""


class Launches:
    """Plans by kernel, dtypes and device, each made once; and what carries them out.

    A kernel is launched with the first tiling that fits, until another one is chosen for the place.
    """

    def __init__(self, table: GateTable) -> None:
        self.table = table
        self.kernels = Kernels(table)
        self.plans: dict[Place, Plan] = {}
        self.ways_back: dict[tuple[Any, ...], Any] = {}
        """What backward passes have made of plans; nothing of it is left where one of them changes."""
        self._first: dict[Place, Plan] = {}
        self._chosen: dict[tuple[torch.device, str], Tiling] = {}
        self.with_matrix = [number for number, entry in enumerate(table.entries) if entry.matrix is not None]
        self._told = False

    def plan(self, kernel: Kernel, number: Number, device: torch.device, tokens: int) -> Plan:
        """Return the kernels to launch in place of one that may be too large; those of a `segment` are segments."""
        place = Place(kernel, number, device, tokens.bit_length())
        plan = self.plans.get(place)
        if plan is None:
            plan = self._fitting(place._replace(bucket=0))
            if not isinstance(plan, Refusal):
                own = ((device, place._replace(kernel=one.kernel).name) for one in plan)
                plan = tuple(
                    one._replace(tiling=self._chosen.get(key, one.tiling)) for one, key in zip(plan, own, strict=True)
                )
            self.plans[place] = plan
        return plan

    def _fitting(self, place: Place) -> Plan:
        if place not in self._first:
            kernel, fit = place.kernel, self._fit(place.number, place.device)
            plan = segments(kernel, fit) if kernel.name == "segment" else planned(kernel, fit)
            self._first[place] = plan
            if isinstance(plan, Refusal) and plan.failed and kernel.name != "segment":
                self._tell(f"compiled, torch computes it instead: {plan.reason}")
        return self._first[place]

    def choose(self, device: torch.device, tilings: Tilings) -> None:
        """Launch kernels on a device with these tilings from now on."""
        self._chosen.update({(device, name): Tiling(*tiling) for name, tiling in tilings.items()})
        self._plan_anew()

    def tune(self, seconds: Callable[[], float]) -> Tilings:
        """Try the tilings of every kernel that a step launches; choose the fastest ones, and return them."""
        self._plan_anew()
        seconds()  # What is planned in it is what it launches.
        plans = [(place, plan) for place, plan in tuple(self.plans.items()) if not isinstance(plan, Refusal)]
        launched = {place._replace(kernel=one.kernel): one.tiling for place, plan in plans for one in plan}
        for place, tiling in launched.items():
            if (place.device, place.name) in self._chosen:
                continue
            options = self._choices(place)
            timed = [self._timed(place, option, seconds) for option in options if len(options) > 1]
            best = options[timed.index(min(timed))] if timed else tiling
            self.choose(place.device, {place.name: best})
        return {place.name: self._chosen[place.device, place.name] for place in launched}

    def _plan_anew(self) -> None:
        self.plans.clear()
        self.ways_back.clear()

    def _timed(self, place: Place, tiling: Tiling, seconds: Callable[[], float]) -> float:
        self.choose(place.device, {place.name: tiling})
        return seconds()

    def _choices(self, place: Place) -> list[Tiling]:
        if place.device.type != "cuda":
            return []
        return choices(self.kernels, place.kernel, place.number, arch_of(place.device))

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
            found = tilings(self.table, kernel)
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
            for plans in (self.plans, self._first):
                for place, plan in list(plans.items()):
                    is_here = (place.number, place.device) == (number, tensors[0].device)
                    # With another tiling it may be launched all the same.
                    if is_here and not isinstance(plan, Refusal) and launch in plan:
                        plans[place] = refusal
            self.ways_back.clear()
            self._tell(f"launched, torch computes it instead: {one_line(error)}")
            raise LaunchError from error

    def boundary(self, kernel: Kernel, like: torch.Tensor, number: Number) -> torch.Tensor:
        """Return memory for what a kernel hands to the next one."""
        return like.new_empty((len(like), self.kernels.boundary_size(kernel)), dtype=number.states)


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor at an address for which kernels are compiled: a slice may begin anywhere."""
    return tensor.clone() if tensor.data_ptr() % _ALIGNED else tensor
