"""The figures of one circuit or method for one layer, and their sum over the layers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quanta_compiler.compare.entrants import MethodEntrant, Shape
from quanta_compiler.compare.row import ADAMW_BYTES, Row
from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.reach import gates_to_full
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.engines import MODELS
from quanta_compiler.predict.times import predicted_times
from quanta_compiler.predict.work import FusedPass, Work
from quanta_compiler.report.report import breakeven

if TYPE_CHECKING:
    from quanta_compiler.compare.methods import MethodCost
    from quanta_compiler.predict.calibration import Calibration

NO_KERNEL = (
    "this calibration was made without the kernel; `quanta bench --calibrate` with a compiler measures it, on the CPU"
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all rows of a comparison share."""

    tokens: int
    backend: str
    calibration: Calibration
    with_rank: bool = False
    seed: int = 0


def circuit_row(source: str, compiled: CompiledCircuit, conditions: Conditions) -> Row:
    """Return the figures of a circuit that was planned for the batch of the comparison."""
    report = compiled.report
    backend = _backend(compiled.circuit, conditions)
    work = circuit_work(compiled, backend=backend)
    connected_after = gates_to_full(compiled.circuit)
    row = _priced(
        work,
        conditions,
        report.parameters.trainable,
        report.operator.flops,
        name=report.name,
        kind="circuit",
        source=source,
        in_features=report.in_features,
        out_features=report.out_features,
        layers=1,
        percent=report.parameters.percent_of_dense,
        saved_bytes_per_token=report.backend(backend).saved_bytes_per_token,
        operator_peak_bytes=report.operator.peak_bytes,
        rank_lower=report.rank.lower,
        rank_upper=report.rank.upper,
        connected=connected_after is not None,
        gates_to_connect=connected_after,
        backend=backend,
        numerical_rank=_numerical_rank(compiled, conditions),
    )
    return replace(row, note=NO_KERNEL) if backend == "fused" and row.forward_seconds is None else row


def _priced(work: Work, conditions: Conditions, trainable: int, operator_flops: int | None, **others: Any) -> Row:
    """Return a row with what follows from the work of a step, and from how many numbers train."""
    forward_seconds, step_seconds = _seconds(work, conditions.calibration)
    forward, tokens = work.forward_flops, conditions.tokens
    return Row(
        trainable=trainable,
        forward_flops_per_token=forward / tokens,
        step_flops_per_token=work.step_flops / tokens,
        optimizer_bytes=ADAMW_BYTES * trainable,
        operator_flops=operator_flops,
        breakeven_tokens=None if operator_flops is None else breakeven(operator_flops, forward, tokens),
        forward_seconds=forward_seconds,
        step_seconds=step_seconds,
        **others,
    )


def _backend(circuit: Circuit, conditions: Conditions) -> str:
    """Return what `auto` would run where the calibration was made: without the kernel, torch."""
    if conditions.backend != "auto":
        return conditions.backend
    rates = conditions.calibration.kernel
    if rates is None:
        return "torch"
    return "fused" if MODELS[rates.engine].prefers(lower_table(circuit), conditions.tokens) else "torch"


def _seconds(work: Work, calibration: Calibration) -> tuple[float | None, float | None]:
    """Return the times of forward and of a step; None where they are the kernel's, and it was not measured."""
    if calibration.kernel is None and any(isinstance(operation, FusedPass) for operation in work.forward):
        return None, None
    times = predicted_times(work, calibration)
    return times.forward_seconds, times.step_seconds


def _numerical_rank(compiled: CompiledCircuit, conditions: Conditions) -> int | None:
    if not conditions.with_rank:
        return None
    from quanta_compiler.compare.numerical_rank import numerical_rank

    return numerical_rank(compiled, conditions.seed)


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


def summed(rows: Sequence[Row], counts: Sequence[int], whole: int, tokens: int) -> Row:
    """Return the figures of a model's layers together: `rows` of one entrant, each for `counts` layers.

    The rank is bounded layer by layer: from the smallest bound to the largest. The peak is that of one layer, since
    layers are merged one after the other.
    """
    trainable = _sum([row.trainable for row in rows], counts)
    backends = sorted({row.backend for row in rows if row.backend is not None})
    figures = {key: join([getattr(row, key) for row in rows], counts) for key, join in _JOINED.items()}
    forward, operator = figures["forward_flops_per_token"], figures["operator_flops"]
    return replace(
        rows[0],
        **figures,
        in_features=None,
        out_features=None,
        layers=sum(counts),
        trainable=trainable,
        percent=100 * trainable / whole,
        breakeven_tokens=None if operator is None else breakeven(operator, round(forward * tokens), tokens),
        connected=None if any(row.connected is None for row in rows) else all(row.connected for row in rows),
        backend=" and ".join(backends) or None,
    )


def _sum(values: Sequence[Any], counts: Sequence[int]) -> Any:
    return None if None in values else sum(value * count for value, count in zip(values, counts, strict=True))


def _least(values: Sequence[Any], _: Sequence[int]) -> Any:
    return None if None in values else min(values)


def _greatest(values: Sequence[Any], _: Sequence[int]) -> Any:
    return None if None in values else max(values)


_JOINED = {
    "forward_flops_per_token": _sum,
    "step_flops_per_token": _sum,
    "saved_bytes_per_token": _sum,
    "optimizer_bytes": _sum,
    "operator_flops": _sum,
    "operator_peak_bytes": _greatest,
    "rank_lower": _least,
    "rank_upper": _greatest,
    "gates_to_connect": _greatest,
    "forward_seconds": _sum,
    "step_seconds": _sum,
    "numerical_rank": _least,
}
"""How the figures of a model's layers are made one."""
