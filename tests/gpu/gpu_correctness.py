"""Do circuits on a device compute what they say? Forward and backward in all dtypes, against the float64 oracle."""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_sections import Deadline, Section
from random_circuits import error, random_file

from quanta_compiler.bench.devices import working_on
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.reference import apply_gates
from quanta_compiler.oracle.verification import draw_gates

EXAMPLES = Path(__file__).parents[2] / "examples"
AUTOCAST = "bfloat16, gates float32"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, AUTOCAST: torch.float32}
"""By what is said of them: the dtype of the gates."""
BOUNDS = {"float32": 1e-6, "bfloat16": 0.0, "float16": 1e-3, AUTOCAST: 2e-3}
"""Of the norm."""
TIMES_TORCH = 1.2
"""An error is right as well if it is at most this many times that of plain torch on the same device."""
_JUDGES_AGREE = 1e-9
_SMALL = 1e-3
"""A gradient this small beside the largest is compared by the size of that."""


@dataclass(frozen=True)
class Case:
    """A circuit in a dtype on a device."""

    name: str
    file: str
    """JSON, or a path."""
    dtype: str
    device: str
    tokens: int

    def __str__(self) -> str:
        return f"{self.name} in {self.dtype}"


@dataclass(frozen=True)
class Verdict:
    """How far a circuit is from the oracle, relative to the norm: its output, and the worst of its gradients."""

    name: str
    dtype: str
    way: str
    """What the module says of how it computes."""
    forward: float
    backward: float
    plain: tuple[float, float] | None
    """The same of plain torch on the device; None where it cannot compute in this dtype."""
    repeats: bool
    """Whether a second run had the same bits."""

    @property
    def problem(self) -> str | None:
        """Return what is wrong, as a clause."""
        plain = self.plain or (0.0, 0.0)
        for what, found, theirs in (("forward", self.forward, plain[0]), ("backward", self.backward, plain[1])):
            most = max(BOUNDS[self.dtype], TIMES_TORCH * theirs)
            # An error that is no number is not within anything.
            if (most or self.plain) and not found <= most:
                return f"{what} is {found:.1e} of the norm away, at most {most:.1e} is right"
        return None if self.repeats else "a second run has other bits"


def cases(device: str, dtypes: Sequence[str], *, circuits: int, quick: bool) -> list[Case]:
    """Return every example and some random circuits, so that whoever stops early has seen all dtypes and circuits."""
    paths = [] if quick else sorted(EXAMPLES.glob("*.yaml"))
    files = [(path.stem, str(path)) for path in paths]
    files += [(f"random-{seed}", json.dumps(random_file(seed))) for seed in range(circuits)]
    tokens = 3 if quick else 67
    return [
        Case(name, file, dtypes[(place + turn) % len(dtypes)], device, tokens)
        for turn in range(len(dtypes))
        for place, (name, file) in enumerate(files)
    ]


def judged(case: Case) -> Verdict | str:
    """Return the verdict of a case, or in one line why there is none."""
    try:
        with working_on(torch.device(case.device)):
            return _judged(case)
    except Exception as failure:
        # Whatever a compiler or a driver raises is a line of the report, not its end.
        return f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0]}"


def _judged(case: Case) -> Verdict:
    spec: Any = json.loads(case.file) if case.file.startswith("{") else case.file
    compiled, device = compile_circuit(spec, tokens=case.tokens), torch.device(case.device)
    gates, vectors = DTYPES[case.dtype], torch.bfloat16 if case.dtype == AUTOCAST else DTYPES[case.dtype]
    generator = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))
    judge: Any = compiled.module(dtype=torch.float64, device="cpu", backend="torch")
    tensors = draw_gates(judge, compiled.circuit, generator)
    # Rounded once, so that all compute with the same numbers.
    judge.load_state_dict(
        {f"gates.{name}": tensor.to(gates).double() for name, tensor in tensors.items()}, strict=False
    )
    x, grad = (
        torch.randn(case.tokens, width, generator=generator).to(vectors)
        for width in (compiled.spec.in_features, compiled.spec.out_features)
    )
    exact = apply_gates(compiled.circuit, {key: judge.state_dict()[f"gates.{key}"] for key in tensors}, x)
    wanted = _results(judge, x.double(), grad.double(), nullcontext())
    if not error(wanted["y"], exact) < _JUDGES_AGREE:
        raise AssertionError("the module in float64 is not what the oracle computes")
    state = {key: tensor.to(gates) for key, tensor in judge.state_dict().items()}

    def found(backend: str) -> tuple[Any, dict[str, torch.Tensor]]:
        module: Any = compiled.module(dtype=gates, device=device, backend=backend)
        module.load_state_dict(state)
        context: AbstractContextManager[Any] = nullcontext()
        if case.dtype == AUTOCAST:
            context = torch.autocast(device.type, dtype=torch.bfloat16)
        return module, _results(module, x.to(device, gates), grad.to(device), context)

    module, ours = found("fused")
    again = found("fused")[1]
    try:
        plain = _errors(found("torch")[1], wanted)
    except (RuntimeError, NotImplementedError):
        plain = None
    repeats = all(torch.equal(ours[name], again[name]) for name in ours)
    return Verdict(case.name, case.dtype, _way(module, compiled), *_errors(ours, wanted), plain, repeats)


def _way(module: Any, compiled: CompiledCircuit) -> str:
    return " ".join(module.extra_repr().split()) or f"{len(compiled.report.gates)} gates"


def _results(
    module: Any, x: torch.Tensor, grad: torch.Tensor, context: AbstractContextManager[Any]
) -> dict[str, torch.Tensor]:
    """Return the output, `y`, and the gradients of the input and of what trains, by name, on the CPU."""
    given = x.detach().requires_grad_()
    wanted = {"x": given, **{name: one for name, one in module.named_parameters() if one.requires_grad}}
    with context:
        y = module(given)
    found = torch.autograd.grad(y, list(wanted.values()), grad.to(y.dtype), materialize_grads=True)
    return {"y": y.detach().cpu(), **{name: one.cpu() for name, one in zip(wanted, found, strict=True)}}


def _errors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> tuple[float, float]:
    gradients = [name for name in wanted if name != "y"]
    floor = _SMALL * max(float(wanted[name].norm()) for name in gradients)
    return error(found["y"], wanted["y"]), max(error(found[name], wanted[name], floor) for name in gradients)


def _all(todo: Sequence[Case], workers: int, deadline: Deadline) -> Iterator[tuple[Case, Verdict | str]]:
    """Yield cases with their verdicts while there is time; several processes compile at the same time on one device."""
    if workers < 2:
        for case in deadline.within(todo, []):
            found: list[Verdict | str] = []
            with deadline.kept(case, []):
                found.append(judged(case))
            yield from ((case, one) for one in found)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        results = pool.imap(judged, todo)
        for case in todo:
            try:
                yield case, results.next(timeout=deadline.left())
            except multiprocessing.TimeoutError:
                return


def correctness(todo: Sequence[Case], workers: int, deadline: Deadline) -> tuple[Section, list[str]]:
    """Return the section, and a line for everything that is wrong."""
    section = Section(
        "correctness",
        "Does it compute the same",
        "The largest error of the norm, against the float64 oracle; right is at most the bound, or "
        f"{TIMES_TORCH} times the error of plain torch on the same device. Bits: of two runs.",
        ("dtype", "circuits", "bound", "forward", "backward", "plain forward", "plain backward", "same bits", "wrong"),
    )
    found: dict[str, list[Verdict]] = {}
    wrong: list[str] = []
    done = 0
    for case, verdict in _all(todo, workers, deadline):
        done += 1
        if isinstance(verdict, str):
            wrong.append(f"{case}: {verdict}")
            section.data.append({"name": case.name, "dtype": case.dtype, "problem": verdict})
            continue
        found.setdefault(case.dtype, []).append(verdict)
        section.data.append({**asdict(verdict), "problem": verdict.problem})
        if verdict.problem is not None:
            wrong.append(f"{case}: {verdict.problem}")
    section.left_out += [f"{case}: there was no time left" for case in todo[done:]]
    for dtype, some in found.items():
        plain = [one.plain for one in some if one.plain is not None]
        worst = (max(one.forward for one in some), max(one.backward for one in some))
        theirs = [max((pair[side] for pair in plain), default=None) for side in (0, 1)]
        cells = [f"{value:.1e}" if value is not None else "" for value in (*worst, *theirs)]
        failed = sum(one.problem is not None for one in some)
        bound = f"{BOUNDS[dtype]:.0e}" if BOUNDS[dtype] else ""
        bits = "all" if all(one.repeats for one in some) else f"{sum(one.repeats for one in some)} of {len(some)}"
        section.rows.append((dtype, str(len(some)), bound, *cells, bits, str(failed)))
    return section, wrong
