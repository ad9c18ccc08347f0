"""Our own contestants: the compiled module with each of its backends."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting, gradients
from quanta_compiler.bench.options import COMPILED, FORWARD, OPERATOR, OURS, TRAINING
from quanta_compiler.kernels.engine import ENGINES, engine_for
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.nn import circuit_tensors
from quanta_compiler.runtime.accelerating import accelerate

Forward = Callable[[torch.Tensor], torch.Tensor]

_TITLES = {
    "fused": "our fused kernel",
    "torch": "our module, plain torch",
    "torch-recomputed": "our module, recomputed for backward",
    COMPILED: "our module, by torch.compile",
}


def our_names(setting: Setting) -> tuple[str, ...]:
    """Return `options.OURS`, the others after the one that they are compared with: what `backend="auto"` takes.

    Where that measures instead of predicting, it is the kernel, if there is one.
    """
    engine = engine_for(setting.device.type, setting.dtype)
    is_fused = engine.prefers(lower_table(setting.compiled.circuit), setting.tokens)
    first = "fused" if is_fused or (is_fused is None and engine is not portable) else "torch"
    return (first, *(name for name in OURS if name != first))


def _no_kernel(device: str, dtype: torch.dtype) -> str:
    """Return why there is no kernel, as a clause."""
    engine = next((one for one in ENGINES if one is not portable and one.takes(device, dtype)), None)
    if engine is None:
        return f"the kernel does not compute in {str(dtype).removeprefix('torch.')}"
    problem = engine.problem()
    if problem is None:
        return "QUANTA_ENGINE names another engine"
    return "the kernel could not be built here" if device == "cpu" else f"the kernel does not run here: {problem}"


def our_contestant(name: str, setting: Setting) -> Contestant:
    """Return one of `options.OURS`: the emitted module, by `accelerate`, as one that is imported would be.

    Raises:
        LeftOutError: this installation cannot make it.

    """
    backend, _, recomputed = name.partition("-")
    if backend == "fused" and engine_for(setting.device.type, setting.dtype) is portable:
        raise LeftOutError(_no_kernel(setting.device.type, setting.dtype))
    module: Any = accelerate(_plain_module(setting), backend=backend, recompute=bool(recomputed))
    return _contestant(name, setting, module, module)


def compiled_contestant(setting: Setting) -> Contestant:
    """Return the emitted module by torch.compile, which has compiled the batch when it returns.

    Raises:
        LeftOutError: it cannot be compiled here.

    """
    module = _plain_module(setting)
    forward: Forward = torch.compile(module, fullgraph=True, dynamic=False)
    contestant = _contestant(COMPILED, setting, module, forward)
    x, gradient = (torch.zeros(setting.tokens, width, device=setting.device) for width in setting.features)
    try:
        gradients(contestant, x.to(setting.dtype).requires_grad_(), gradient.to(setting.dtype))
    except Exception as error:
        # What torch.compile and its compilers raise has no class in common.
        raise LeftOutError(f"torch.compile fails: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    costs = {mode: cost for mode, cost in contestant.costs.items() if mode != OPERATOR}
    return replace(contestant, costs=costs, operator=None)


def _plain_module(setting: Setting) -> Any:
    """Return the emitted module with the gates of a setting."""
    module: Any = setting.compiled.module(dtype=setting.dtype, device=setting.device, backend="torch")
    named = dict(module.named_parameters())
    with torch.no_grad():
        for key, value in setting.gates.items():
            named[f"gates.{key}"].copy_(value)
    return module


def _contestant(name: str, setting: Setting, module: Any, forward: Forward) -> Contestant:
    named = dict(module.named_parameters())
    return Contestant(
        name=name,
        title=_TITLES[name],
        forward=forward,
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
