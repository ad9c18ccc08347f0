"""Passes: circuit -> circuit, pure, the operator unchanged."""

from quanta_compiler.passes.absorb_rotations import MEMORY_FLOPS, absorb_rotations
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.passes.expand_pauli import expand_pauli, is_two_design, write_out
from quanta_compiler.passes.merge_blocks import merge_blocks

__all__ = [
    "MEMORY_FLOPS",
    "absorb_rotations",
    "canonical_order",
    "drop_unit_axes",
    "expand_pauli",
    "is_two_design",
    "merge_blocks",
    "write_out",
]
