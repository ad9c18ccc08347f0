"""Passes: circuit -> circuit, pure, the operator unchanged."""

from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.passes.merge_blocks import merge_blocks

__all__ = ["canonical_order", "drop_unit_axes", "merge_blocks"]
