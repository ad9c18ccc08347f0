"""Our own contestants: the compiled module with each of its backends."""

from typing import Any

import torch

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting
from quanta_compiler.bench.options import FORWARD, OPERATOR, OURS, TRAINING
from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.kernels.engine import engine_for
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.nn import circuit_tensors
from quanta_compiler.runtime.accelerating import accelerate

_TITLES = {
    "fused": "our fused kernel",
    "torch": "our module, plain torch",
    "torch-recomputed": "our module, recomputed for backward",
}


def our_names(compiled: CompiledCircuit, dtype: torch.dtype) -> tuple[str, ...]:
    """Return `options.OURS`, the one that `backend="auto"` takes in front: the others are compared with it."""
    is_fused = engine_for("cpu", dtype).prefers(lower_table(compiled.circuit), compiled.spec.tokens)
    first = "fused" if is_fused else "torch"
    return (first, *(name for name in OURS if name != first))


def _no_kernel(dtype: torch.dtype) -> str:
    if not cpu.takes("cpu", dtype):
        return f"the kernel does not compute in {str(dtype).removeprefix('torch.')}"
    return "the kernel could not be built here" if cpu.problem() else "QUANTA_ENGINE names another engine"


def our_contestant(name: str, setting: Setting) -> Contestant:
    """Return one of `options.OURS`: the emitted module, by `accelerate`, as one that is imported would be.

    Raises:
        LeftOutError: this installation cannot make it.

    """
    backend, _, recomputed = name.partition("-")
    if backend == "fused" and engine_for("cpu", setting.dtype) is portable:
        raise LeftOutError(_no_kernel(setting.dtype))
    plain = setting.compiled.module(dtype=setting.dtype, device="cpu", backend="torch")
    module: Any = accelerate(plain, backend=backend, recompute=bool(recomputed))
    named = dict(module.named_parameters())
    with torch.no_grad():
        for key, value in setting.gates.items():
            named[f"gates.{key}"].copy_(value)
    return Contestant(
        name=name,
        title=_TITLES[name],
        forward=module,
        parameters=tuple(named[f"gates.{key}"] for key in setting.trained),
        own=tuple(tensor for _, tensor in circuit_tensors(module)),
        costs=_costs(setting),
        operator=module.operator,
        is_circuit=True,
    )


def _costs(setting: Setting) -> dict[str, Cost]:
    """Return what the report says, for the size of the numbers; in backward each saved tensor has a gradient."""
    report, tokens = setting.compiled.report, setting.tokens
    scale = setting.dtype.itemsize / 4
    peak = scale * tokens * report.apply.peak_bytes_per_token
    saved = scale * tokens * report.apply.saved_bytes_per_token
    gates = sum(gate.nbytes for gate in setting.gates.values())
    forward, operator = setting.circuit_flops
    return {
        FORWARD: Cost(forward, peak + gates),
        TRAINING: Cost(3 * forward, 2 * (peak + saved + gates)),
        OPERATOR: Cost(operator, scale * report.operator.peak_bytes + gates),
    }
