"""The rank that a circuit's operator really has, on a random instance; torch is imported where it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quanta_compiler.oracle.verification import draw_gates
from quanta_compiler.system.machine import LimitError, free_bytes
from quanta_compiler.text.words import bytes_text

if TYPE_CHECKING:
    from quanta_compiler.driver import CompiledCircuit

_MATRICES = 4
"""Of float64: the operator, what building it takes, and what LAPACK copies."""


def numerical_rank(compiled: CompiledCircuit, seed: int) -> int:
    """Return how many singular values of a random instance are above rounding, in float64.

    Gates are drawn so that they keep the size of a vector. Rounding is max(in, out) times the machine's epsilon of the
    largest singular value, as `torch.linalg.matrix_rank` has it. 4,096 features take about half a minute on two cores.

    Raises:
        LimitError: the matrices need more than half of the free memory.

    """
    spec = compiled.spec
    needed, free = 8 * _MATRICES * spec.in_features * spec.out_features, free_bytes()
    if 2 * needed > free:
        shape = f"{spec.in_features} x {spec.out_features}"
        have = f"half of the free memory is {bytes_text(free / 2)}"
        raise LimitError(f"the singular values of {spec.name!r} ({shape}) need {bytes_text(needed)}, {have}")

    import torch

    module: Any = compiled.module(seed=seed, dtype=torch.float64, device="cpu", backend="torch")
    draw_gates(module, compiled.circuit, torch.Generator("cpu").manual_seed(seed))
    with torch.no_grad():
        operator = module.operator()
    return int(torch.linalg.matrix_rank(operator))
