"""Whole modules that a calibration is made of: what calling takes, and the kernel's rates, fitted to many shapes."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from quanta_compiler.bench.operations import Effort, Key, Maker, Run
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engine import engine_for
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.engines import MODELS, EngineRates
from quanta_compiler.predict.work import Work

Row = tuple[tuple[float, ...], float]
"""What is counted in a call, and its seconds."""
Call = tuple[Sequence[Sequence[float]], float]
"""The same kernel by kernel."""

FORWARD, RECORDED, STEP = range(3)
"""Without gradient; with what backward needs; with backward."""

_ONE = {"axes": [0]}
CIRCUITS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    *((layout, (_ONE,)) for layout in ("2x2048", "8x128", "16x16", "24x40", "64x4", "64x64", "256x2", "256x16", "512")),
    *((layout, (_ONE,) * 3) for layout in ("2x256", "4x64", "4x1024", "8x8", "16x128", "32x32", "128x8", "400x1")),
    *((layout, ("all_pairs",)) for layout in ("4x4x4", "16x12x8", "8x8x8x4", "32x32x2", "4x4x4x4x4", "16x16x32")),
    ("2x2x2x2x2x2x2x2x2x2", ({"pattern": "brick"},)),
    ("64x32", ({"axes": [0], "to": [8]}, {"axes": [0], "to": [64]})),
    ("16x128", ({"axes": [0], "to": [64]}, {"axes": [0], "to": [16]})),
    ("2048", ({"axes": [0], "kind": "lowrank", "rank": 8},)),
    ("2048", ({"axes": [0], "kind": "diagonal"},)),
    ("16384", ({"axes": [0], "kind": "diagonal"},)),
    ("1024", (_ONE,)),
    ("32x16", ({"axes": [1], "per": [0]}, {"axes": [0], "per": [1]})),
)
"""Layouts with gates, of many shapes; none is among the circuits that predictions are compared with."""
_CALLS = ("2x2x2x2", ("all_pairs",))
"""Many steps that do next to nothing."""
_CALL_TOKENS = 4


def call_jobs() -> Iterator[tuple[Key, Maker]]:
    """Yield what shows the time of calling operations."""
    for kind in (FORWARD, RECORDED, STEP):
        yield ("calls", (kind,)), partial(_run, _compiled(*_CALLS, _CALL_TOKENS), "torch", kind)


def call_work() -> Work:
    """Return the work that `call_jobs` does."""
    return circuit_work(_compiled(*_CALLS, _CALL_TOKENS))


def engine_jobs(effort: Effort, device: str) -> Iterator[tuple[Key, Maker]]:
    """Yield what shows the rates of a device's engine; nothing where none runs that has any."""
    if engine_for(device, torch.float32).name not in MODELS:
        return
    for place, (layout, gates) in enumerate(CIRCUITS):
        for tokens in effort.tokens:
            compiled = _compiled(layout, gates, tokens)
            for kind in (FORWARD, STEP):
                yield ("kernel", (place, tokens, kind)), partial(_run, compiled, "fused", kind)


def fitted_engine(effort: Effort, seconds: dict[Key, float], device: str, threads: int) -> EngineRates | None:
    """Return the rates with which the counts of all circuits come nearest to their times; None without times."""
    name = engine_for(device, torch.float32).name
    if name not in MODELS:
        return None
    calls: list[Call] = []
    for place, (layout, gates) in enumerate(CIRCUITS):
        for tokens in effort.tokens:
            table = lower_table(_compiled(layout, gates, tokens).circuit)
            there, back = (MODELS[name].counts(table, tokens, backward, threads) for backward in (False, True))
            calls.append((there, seconds["kernel", (place, tokens, FORWARD)]))
            calls.append(((*there, *back), seconds["kernel", (place, tokens, STEP)]))
    return EngineRates(name, tuple(roofline_fit(calls) if MODELS[name].overlaps else sum_fit(calls)))


def sum_fit(calls: Sequence[Call]) -> list[float]:
    """Return the rates where a kernel takes the sum of what is counted."""
    return nonnegative_fit([(tuple(map(sum, zip(*kernels, strict=True))), seconds) for kernels, seconds in calls])


def roofline_fit(calls: Sequence[Call], turns: int = 10) -> list[float]:
    """Return the rates where a kernel takes the longest of what is counted.

    At first every feature has the best rate that any call shows. Then each kernel counts for the feature that takes
    longest, rates are fitted to that, and so on.
    """
    sums = [(list(map(sum, zip(*kernels, strict=True))), seconds) for kernels, seconds in calls]
    features = range(len(sums[0][0]))
    rates = [min((seconds / counts[one] for counts, seconds in sums if counts[one]), default=0.0) for one in features]
    for _ in range(turns):
        rows: list[Row] = []
        for kernels, seconds in calls:
            bound = [0.0] * len(rates)
            for counts in kernels:
                longest = max(features, key=lambda one: rates[one] * counts[one])
                bound[longest] += counts[longest]
            rows.append((tuple(bound), seconds))
        found = nonnegative_fit(rows)
        bounds = [any(row[one] for row, _ in rows) for one in features]
        rates = [new if is_bound else old for is_bound, new, old in zip(bounds, found, rates, strict=True)]
    return rates


def nonnegative_fit(rows: Sequence[Row], sweeps: int = 2000) -> list[float]:
    """Return rates, none below zero, with which counts come nearest to seconds, relative to these.

    By coordinate descent: each rate in turn is set to the best that it can be.
    """
    counts = [[count / seconds for count in row] for row, seconds in rows]
    columns = [list(column) for column in zip(*counts, strict=True)]
    norms = [sum(count * count for count in column) for column in columns]
    rates = [0.0] * len(columns)
    missing = [1.0] * len(rows)
    for _ in range(sweeps):
        for place, (column, norm) in enumerate(zip(columns, norms, strict=True)):
            if norm == 0:
                continue
            better = rates[place] + sum(count * gap for count, gap in zip(column, missing, strict=True)) / norm
            change = max(0.0, better) - rates[place]
            if change:
                rates[place] += change
                missing = [gap - change * count for count, gap in zip(column, missing, strict=True)]
    return rates


def _compiled(layout: str, gates: tuple[Any, ...], tokens: int) -> CompiledCircuit:
    return compile_circuit({"version": 1, "name": "small", "layout": layout, "gates": list(gates)}, tokens=tokens)


def _run(compiled: CompiledCircuit, backend: str, kind: int, device: torch.device) -> Run:
    module = compiled.module(seed=0, device=device, backend=backend)
    return module_run(module, *drawn_batch(compiled, device), kind)


def drawn_batch(compiled: CompiledCircuit, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an input, `[tokens, in_features]`, and the gradient of an output, `[tokens, out_features]`."""
    spec = compiled.spec
    x, gradient = (torch.randn(spec.tokens, width, device=device) for width in (spec.in_features, spec.out_features))
    return x.requires_grad_(), gradient


def module_run(module: torch.nn.Module, x: torch.Tensor, gradient: torch.Tensor, kind: int) -> Run:
    """Return what runs a module: `FORWARD`, `RECORDED`, or `STEP` with the gradients of `x` and of all that trains."""
    wanted = [x, *(one for one in module.parameters() if one.requires_grad)]

    def forward() -> None:
        with torch.no_grad():
            module(x)

    def recorded() -> None:
        module(x)

    def step() -> None:
        torch.autograd.grad(module(x), wanted, gradient)

    return (forward, recorded, step)[kind]
