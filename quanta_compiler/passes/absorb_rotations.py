"""Compose runs of `ry` and `cz` into blocks: each by itself is a way through the memory for two numbers."""

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.kinds.kind import Merging
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.merge_blocks import Policy, merge_blocks

MEMORY_FLOPS = 100
"""What reading and writing a number once costs beside arithmetic, in FLOPs at the rate of a large product.

A rough figure: three times as much makes no other blocks.
"""
LARGEST = 64
"""The largest blocks, in indices that they contract: where torch applies them."""


def absorb_rotations(circuit: Circuit, tokens: int, largest: int = LARGEST, numbers: int | None = None) -> Circuit:
    """Compose rotations of few axes where that takes less time for `tokens` vectors, though it has more FLOPs.

    With `numbers` the matrices of a block, one for every index of the axes that select it, have at most that many
    entries.
    """
    if not any(gate.matrix.merging is Merging.ANGLES for gate in circuit.gates):
        return circuit
    policy = Policy(Merging.ANGLES, largest, MEMORY_FLOPS, numbers)
    return merge_blocks(canonical_order(circuit), tokens, policy)
