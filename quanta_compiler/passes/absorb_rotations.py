"""Compose runs of `ry` and `cz` into blocks: each by itself is a way through the memory for two numbers."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.merge_blocks import Policy, merge_blocks

ABSORBED_KINDS = ("ry", "cz")
MEMORY_FLOPS = 100
"""What reading and writing a number once costs beside arithmetic, in FLOPs at the rate of a large product."""
_POLICY = Policy(ABSORBED_KINDS, largest=64, memory_flops=MEMORY_FLOPS)


def absorb_rotations(circuit: Circuit, tokens: int) -> Circuit:
    """Compose rotations of few axes where that takes less time for `tokens` vectors, though it has more FLOPs."""
    if not any(gate.kind in ABSORBED_KINDS for gate in circuit.gates):
        return circuit
    return merge_blocks(canonical_order(circuit), tokens, _POLICY)
