"""The figures of one circuit or method for one layer, and their sum over the layers of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

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
    forward_seconds, step_seconds = _seconds(work, conditions.calibration)
    connected_after = gates_to_full(compiled.circuit)
    return Row(
        name=report.name,
        kind="circuit",
        source=source,
        in_features=report.in_features,
        out_features=report.out_features,
        layers=1,
        trainable=report.parameters.trainable,
        percent=report.parameters.percent_of_dense,
        forward_flops_per_token=work.forward_flops / conditions.tokens,
        step_flops_per_token=work.step_flops / conditions.tokens,
        saved_bytes_per_token=report.backend(backend).saved_bytes_per_token,
        optimizer_bytes=ADAMW_BYTES * report.parameters.trainable,
        operator_flops=report.operator.flops,
        operator_peak_bytes=report.operator.peak_bytes,
        breakeven_tokens=breakeven(report.operator.flops, work.forward_flops, conditions.tokens),
        rank_lower=report.rank.lower,
        rank_upper=report.rank.upper,
        connected=connected_after is not None,
        gates_to_connect=connected_after,
        backend=backend,
        forward_seconds=forward_seconds,
        step_seconds=step_seconds,
        numerical_rank=_numerical_rank(compiled, conditions),
        note=NO_KERNEL if backend == "fused" and forward_seconds is None else "",
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
    forward_seconds, step_seconds = _seconds(cost.work, conditions.calibration)
    forward = cost.work.forward_flops
    return Row(
        name=entrant.source,
        kind="dense" if entrant.method.name == "dense" else "method",
        source=entrant.source,
        in_features=shape[0] if shape else None,
        out_features=shape[1] if shape else None,
        layers=layers,
        trainable=cost.trainable,
        percent=100 * cost.trainable / whole,
        forward_flops_per_token=forward / conditions.tokens,
        step_flops_per_token=cost.work.step_flops / conditions.tokens,
        saved_bytes_per_token=cost.saved_bytes / conditions.tokens,
        optimizer_bytes=ADAMW_BYTES * cost.trainable,
        operator_flops=cost.operator_flops,
        operator_peak_bytes=None,
        breakeven_tokens=None
        if cost.operator_flops is None
        else breakeven(cost.operator_flops, forward, conditions.tokens),
        rank_lower=cost.rank_lower,
        rank_upper=cost.rank_upper,
        connected=None,
        gates_to_connect=None,
        backend=None,
        forward_seconds=forward_seconds,
        step_seconds=step_seconds,
        note=cost.note,
    )


def summed(rows: Sequence[Row], counts: Sequence[int], whole: int, tokens: int) -> Row:
    """Return the figures of a model's layers together: `rows` of one entrant, each for `counts` layers.

    The rank is bounded layer by layer: from the smallest bound to the largest. The peak is that of one layer, since
    layers are merged one after the other.
    """
    first = rows[0]
    trainable = _sum((row.trainable for row in rows), counts)
    forward = _sum((row.forward_flops_per_token for row in rows), counts)
    operator = _optional_sum([row.operator_flops for row in rows], counts)
    backends = sorted({row.backend for row in rows if row.backend is not None})
    return replace(
        first,
        in_features=None,
        out_features=None,
        layers=sum(counts),
        trainable=trainable,
        percent=100 * trainable / whole,
        forward_flops_per_token=forward,
        step_flops_per_token=_sum((row.step_flops_per_token for row in rows), counts),
        saved_bytes_per_token=_sum((row.saved_bytes_per_token for row in rows), counts),
        optimizer_bytes=_sum((row.optimizer_bytes for row in rows), counts),
        operator_flops=operator,
        operator_peak_bytes=_greatest([row.operator_peak_bytes for row in rows]),
        breakeven_tokens=None if operator is None else breakeven(operator, round(forward * tokens), tokens),
        rank_lower=_least([row.rank_lower for row in rows]),
        rank_upper=_greatest([row.rank_upper for row in rows]),
        connected=None if any(row.connected is None for row in rows) else all(row.connected for row in rows),
        gates_to_connect=_greatest([row.gates_to_connect for row in rows]),
        backend=" and ".join(backends) or None,
        forward_seconds=_optional_sum([row.forward_seconds for row in rows], counts),
        step_seconds=_optional_sum([row.step_seconds for row in rows], counts),
        numerical_rank=_least([row.numerical_rank for row in rows]),
    )


Number = TypeVar("Number", int, float)


def _sum(values: Iterable[Number], counts: Sequence[int]) -> Number:
    return sum(value * count for value, count in zip(values, counts, strict=True))


def _optional_sum(values: Sequence[Number | None], counts: Sequence[int]) -> Number | None:
    known = [value for value in values if value is not None]
    return _sum(known, counts) if len(known) == len(values) else None


def _least(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None


def _greatest(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
