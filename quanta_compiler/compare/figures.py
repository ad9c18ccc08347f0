"""The figures of one circuit or method for one layer, and their sum over the layers of a model."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Any

from quanta_compiler.compare.entrants import MethodEntrant, Shape
from quanta_compiler.compare.method_costs import MethodCost, magnitude_cost
from quanta_compiler.compare.row import ADAMW_BYTES, MISFIT, Row
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.ir.reach import gates_to_full
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.engines import MODELS
from quanta_compiler.predict.times import predicted_times
from quanta_compiler.predict.work import FusedPass, Work, joined
from quanta_compiler.report.report import breakeven
from quanta_compiler.system.machine import LimitError, free_bytes
from quanta_compiler.text.quantities import bytes_text

_RANK_MATRICES = 4
"""Of float64 for a numerical rank: the operator, what building it takes, and what LAPACK copies."""
NO_KERNEL = "this calibration was made without the kernel; `quanta bench --calibrate` measures it where it runs"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all rows of a comparison share."""

    tokens: int
    backend: str
    calibration: Calibration
    with_rank: bool = False
    seed: int = 0


def circuit_row(source: str, compiled: CompiledCircuit, conditions: Conditions, *, has_magnitudes: bool = False) -> Row:
    """Return the figures of a circuit that was planned for the batch of the comparison; with DoRA's magnitudes."""
    report = compiled.report
    backend = _backend(compiled, conditions)
    work = circuit_work(compiled, backend=backend)
    added = _magnitudes(compiled, backend) if has_magnitudes else _NOTHING
    lower, upper = report.rank.lower, report.rank.upper
    if added.rank_upper is not None:
        lower, upper = max(0, added.rank_upper - upper), added.rank_upper
    connected_after = gates_to_full(compiled.circuit)
    row = _priced(
        joined([work, added.work]),
        conditions,
        report.parameters.trainable + added.trainable,
        report.operator.flops + (added.operator_flops or 0),
        name=report.name,
        kind="circuit",
        source=source,
        in_features=report.in_features,
        out_features=report.out_features,
        layers=1,
        percent=report.parameters.percent_of_dense + 100 * added.trainable / (report.in_features * report.out_features),
        saved_bytes_per_token=report.backend(backend).saved_bytes_per_token + added.saved_bytes / conditions.tokens,
        operator_peak_bytes=report.operator.peak_bytes,
        rank_lower=lower,
        rank_upper=upper,
        connected=connected_after is not None,
        gates_to_connect=connected_after,
        backend=backend,
        numerical_rank=_numerical_rank(compiled, conditions.seed) if conditions.with_rank else None,
    )
    no_kernel = NO_KERNEL if backend == "fused" and row.forward_seconds is None else ""
    return replace(row, note="; ".join(filter(None, (_misfit(compiled), added.note, no_kernel))))


_NOTHING = MethodCost(0, Work((), ()), 0)


def _magnitudes(compiled: CompiledCircuit, backend: str) -> MethodCost:
    """Return what DoRA's magnitudes add to a circuit; its matrix is made of as many unit vectors as it has inputs."""
    spec = compiled.spec
    operator = circuit_work(compile_circuit(spec, spec.in_features), backend=backend)
    return magnitude_cost(spec.in_features, spec.out_features, spec.tokens, operator)


def _misfit(compiled: CompiledCircuit) -> str:
    """Return a note where a circuit is less than half as wide as its layer, or over twice.

    Only the larger of two widths counts: a square circuit for a layer that narrows is padded to that as it should be.
    """
    spec = compiled.spec
    own = max(math.prod(axis.size for axis in axes) for axes in (spec.layout, spec.output))
    layer = max(spec.in_features, spec.out_features)
    return f"a circuit of {own:,} features: {MISFIT}" if 2 * min(own, layer) < max(own, layer) else ""


def _priced(work: Work, conditions: Conditions, trainable: int, operator_flops: int | None, **others: Any) -> Row:
    """Return a row with what follows from the work of a step, and from how many numbers train."""
    forward, tokens, calibration = work.forward_flops, conditions.tokens, conditions.calibration
    # The kernel has no times where it was not measured.
    has_times = calibration.kernel is not None or not any(isinstance(one, FusedPass) for one in work.forward)
    times = predicted_times(work, calibration) if has_times else None
    return Row(
        trainable=trainable,
        forward_flops_per_token=forward / tokens,
        step_flops_per_token=work.step_flops / tokens,
        optimizer_bytes=ADAMW_BYTES * trainable,
        operator_flops=operator_flops,
        breakeven_tokens=None if operator_flops is None else breakeven(operator_flops, forward, tokens),
        forward_seconds=times.forward_seconds if times else None,
        step_seconds=times.step_seconds if times else None,
        **others,
    )


def _backend(compiled: CompiledCircuit, conditions: Conditions) -> str:
    """Return what `auto` would run where the calibration was made: without the kernel, torch.

    Where `auto` measures, it is what is expected to be faster in a training step.
    """
    if conditions.backend != "auto":
        return conditions.backend
    rates = conditions.calibration.kernel
    if rates is None:
        return "torch"
    is_faster = MODELS[rates.engine].prefers(lower_table(compiled.circuit), conditions.tokens)
    if is_faster is None:
        fused, plain = (
            predicted_times(circuit_work(compiled, backend), conditions.calibration) for backend in ("fused", "torch")
        )
        is_faster = fused.step_seconds < plain.step_seconds
    return "fused" if is_faster else "torch"


def _numerical_rank(compiled: CompiledCircuit, seed: int) -> int:
    """Return how many singular values of a random instance are above rounding, in float64.

    Gates are drawn so that they keep the size of a vector. Rounding is max(in, out) times the machine's epsilon of the
    largest singular value, as `torch.linalg.matrix_rank` has it. 4,096 features take about half a minute on two cores.
    """
    import torch

    from quanta_compiler.oracle.verification import draw_gates

    spec = compiled.spec
    needed, free = 8 * _RANK_MATRICES * spec.in_features * spec.out_features, free_bytes()
    if 2 * needed > free:
        shape = f"{spec.in_features} x {spec.out_features}"
        have = f"half of the free memory is {bytes_text(free / 2)}"
        raise LimitError(f"the singular values of {spec.name!r} ({shape}) need {bytes_text(needed)}, {have}")
    module: Any = compiled.module(seed=seed, dtype=torch.float64, device="cpu", backend="torch")
    draw_gates(module, compiled.circuit, torch.Generator("cpu").manual_seed(seed))
    with torch.no_grad():
        operator = module.operator()
    return int(torch.linalg.matrix_rank(operator))


def method_row(
    entrant: MethodEntrant,
    cost: MethodCost,
    conditions: Conditions,
    *,
    shape: Shape | None,
    layers: int | None,
    whole: int,
) -> Row:
    """Return the figures of what is no circuit, from its cost; `whole` is what its percentage is of."""
    return _priced(
        cost.work,
        conditions,
        cost.trainable,
        cost.operator_flops,
        name=entrant.source,
        kind="dense" if entrant.method.name == "dense" else "method",
        source=entrant.source,
        in_features=shape[0] if shape else None,
        out_features=shape[1] if shape else None,
        layers=layers,
        percent=100 * cost.trainable / whole,
        saved_bytes_per_token=cost.saved_bytes / conditions.tokens,
        rank_lower=cost.rank_lower,
        rank_upper=cost.rank_upper,
        note=cost.note,
        family=entrant.method.name,
    )


def summed(rows: Sequence[Row], counts: Sequence[int], whole: int, tokens: int, again: int = 0) -> Row:
    """Return the figures of a model's layers together: `rows` of one entrant, each for `counts` layers.

    `again` is how many trained numbers are counted more than once, because layers have them together. The rank is
    bounded layer by layer: from the smallest bound to the largest. The peak is that of one layer, since layers are
    merged one after the other.
    """
    figures: dict[str, Any] = {}
    for key, join in _JOINED.items():
        values = [getattr(row, key) for row in rows]
        if join is sum and None not in values:
            values = list(map(mul, values, counts))
        figures[key] = None if None in values else join(values)
    figures["trainable"] -= again
    figures["optimizer_bytes"] -= ADAMW_BYTES * again
    backends = sorted({row.backend for row in rows if row.backend is not None})
    forward, operator = figures["forward_flops_per_token"], figures["operator_flops"]
    return replace(
        rows[0],
        **figures,
        in_features=None,
        out_features=None,
        layers=sum(counts),
        percent=100 * figures["trainable"] / whole,
        breakeven_tokens=None if operator is None else breakeven(operator, round(forward * tokens), tokens),
        backend=" and ".join(backends) or None,
    )


_JOINED: Mapping[str, Callable[[Any], Any]] = {
    "trainable": sum,
    "forward_flops_per_token": sum,
    "step_flops_per_token": sum,
    "saved_bytes_per_token": sum,
    "optimizer_bytes": sum,
    "operator_flops": sum,
    "operator_peak_bytes": max,
    "rank_lower": min,
    "rank_upper": max,
    "connected": all,
    "gates_to_connect": max,
    "forward_seconds": sum,
    "step_seconds": sum,
    "numerical_rank": min,
}
"""How the figures of a model's layers are made one; a sum counts every layer."""
