"""What the kernels of a circuit need, by architecture, found by compiling them without a GPU: `quanta kernel`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from quanta_compiler.diagnostics import refusal
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.triton.architectures import NAMES, OLDEST, SHARED, is_too_old
from quanta_compiler.kernels.engines.triton.forms import is_cheaper_in_segments
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Number, Tiling, number_for
from quanta_compiler.kernels.engines.triton.plans import Plan, Refusal, fitting, planned, segments
from quanta_compiler.kernels.engines.triton.resources import TOOLS, Resources, import_problem, tool_path
from quanta_compiler.lowering.table import GateTable, lower_table
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.text.console import Progress

FORMAT = 1
"""Of the JSON; goes up when a key changes its meaning."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A kernel, or a part of it, that was compiled with a tiling."""

    kernel: Kernel
    tiling: Tiling
    needs: Resources | str
    """Or why Triton cannot compile it."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over the tokens on an architecture: what was tried, and what is launched."""

    whole: Kernel
    """Before anything is cut."""
    arch: int
    trials: tuple[Trial, ...]
    plan: Plan

    @property
    def title(self) -> str:
        """Return `forward`, or of a backward pass `segment`, `states` or `flow`; `flow of S` is beside segments."""
        return "flow of S" if self.whole.exact and self.whole.name == "flow" else self.whole.title

    @property
    def runs(self) -> str:
        """Return what carries it out: kernels, or what stands in for them where none fit."""
        if not isinstance(self.plan, Refusal):
            return "triton"
        return "stored" if self.title == "segment" else "T and S apart" if self.whole.minus else "as torch does"

    def is_taken(self, trial: Trial) -> bool:
        """Say whether a trial is launched."""
        return not isinstance(self.plan, Refusal) and (trial.kernel, trial.tiling) in self.plan


@dataclass(frozen=True, slots=True)
class Needs:
    """What was found of a circuit."""

    name: str
    gates: tuple[str, ...]
    """Those of the table, in order."""
    number: Number
    gates_dtype: torch.dtype
    difference: bool
    """Whether T x - S x was compiled."""
    triton: str
    passes: tuple[Pass, ...]

    def gates_of(self, kernel: Kernel) -> tuple[str, ...]:
        """Return the names of a kernel's gates."""
        return self.gates[kernel.first : kernel.last]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {
            "format": FORMAT,
            "circuit": self.name,
            "gates": list(self.gates),
            "dtype": _name(self.number.vectors),
            "gates_dtype": _name(self.gates_dtype),
            "difference": self.difference,
            "triton": self.triton,
            "passes": [self._pass(one) for one in self.passes],
        }

    def _pass(self, one: Pass) -> dict[str, Any]:
        return {
            "arch": f"sm_{one.arch}",
            "shared_bytes_available": SHARED[one.arch] * 1024,
            "pass": one.title,
            "runs": one.runs,
            "reason": one.plan.reason if isinstance(one.plan, Refusal) else None,
            "kernels": [] if isinstance(one.plan, Refusal) else [self._launch(*launch) for launch in one.plan],
            "tried": [{**self._launch(trial.kernel, trial.tiling), **_found(one, trial)} for trial in one.trials],
        }

    def _launch(self, kernel: Kernel, tiling: Tiling) -> dict[str, Any]:
        return {"gates": list(self.gates_of(kernel)), "tokens": tiling.tokens, "warps": tiling.warps}


def _found(one: Pass, trial: Trial) -> dict[str, Any]:
    needs = trial.needs
    if isinstance(needs, str):
        return {"problem": needs, "fits": False, "taken": False}
    return {
        "registers": needs.registers,
        "spilled_bytes": needs.spilled,
        "shared_bytes": needs.shared,
        "tensor_memory_columns": needs.tensor_columns,
        "matrix_instructions": needs.matrix_instructions,
        "fits": needs.fits(one.arch),
        "taken": one.is_taken(trial),
    }


def kernel_needs(
    spec: CircuitSpec, arches: Sequence[str], dtype: str, gates: str, progress: Progress, *, difference: bool = False
) -> Needs:
    """Compile the kernels of a circuit, or of T x - S x, for architectures, `sm_90`, and return what they need.

    Raises:
        SpecError: Triton is missing, too old, without its tools, or told to interpret.

    """
    triton = _triton_version()
    table = lower_table(build_circuit(spec))
    kernels, gates_dtype = Kernels(table), getattr(torch, gates)
    matrices = [torch.empty(0, dtype=gates_dtype)]
    number = number_for(getattr(torch, dtype), (matrices, matrices if difference else ()))
    passes = []
    for arch in arches:
        for whole in _whole(table, minus=difference):
            progress.begin(f"compiling {whole.title} for {arch}")
            passes.append(_pass(kernels, whole, number, NAMES[arch], progress))
    names = tuple(entry.name for entry in table.entries)
    return Needs(spec.name, names, number, gates_dtype, difference, triton, tuple(passes))


def _pass(kernels: Kernels, whole: Kernel, number: Number, arch: int, progress: Progress) -> Pass:
    trials: list[Trial] = []

    def told(kernel: Kernel, tiling: Tiling, needs: Resources | str) -> None:
        trials.append(Trial(kernel, tiling, needs))
        progress.advance()

    fit = fitting(kernels, number, arch, told)
    plan = segments(whole, fit) if whole.name == "segment" else planned(whole, fit)
    return Pass(whole, arch, tuple(trials), plan)


def _whole(table: GateTable, *, minus: bool) -> list[Kernel]:
    """Return the kernels before anything is cut: forward, and those of a backward pass that trains all gates.

    Its segments come first where they move fewer numbers; where they do not fit, states and gradients are stored.
    """
    count = len(table.entries)
    trained = tuple(number for number, entry in enumerate(table.entries) if entry.matrix is not None)
    states = [Kernel("forward", 0, trained[-1] + 1, trained, result=False)] if trained else []
    is_cheaper = is_cheaper_in_segments(table, trained, minus=minus)
    segment = [Kernel("segment", 0, count, trained, exact=minus)] if is_cheaper else []
    beside = [Kernel("flow", 0, count, exact=True)] if segment and minus else []
    whole = Kernel("forward", 0, count, minus=minus)
    return [whole, *segment, *beside, *states, Kernel("flow", 0, count, trained, minus=minus)]


def _triton_version() -> str:
    """Return the version of Triton; raise SpecError where it cannot compile here."""
    hint = "pip install triton (for Linux); it needs no GPU"
    problem = import_problem()
    if problem is not None:
        raise refusal("quanta", f"`quanta kernel` needs Triton, which {problem}", hint=hint)
    import triton

    version = str(triton.__version__)
    if is_too_old(version):
        oldest = ".".join(map(str, OLDEST))
        raise refusal("quanta", f"`quanta kernel` needs Triton {oldest} or newer; {version} is installed", hint=hint)
    missing = [name for name in TOOLS if not tool_path(name).exists()]
    if missing:
        fact = f"Triton {version} is installed without {' and '.join(missing)}, which its wheel on PyPI has"
        raise refusal("quanta", fact, hint=hint)
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise refusal("quanta", "TRITON_INTERPRET is set: kernels would be interpreted, not compiled", hint="unset it")
    return version


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
