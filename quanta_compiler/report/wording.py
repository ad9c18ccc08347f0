"""What several texts say in the same words."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Gate


def resized(before: int, after: int) -> str:
    """Say what happens to a vector of `before` numbers where `after` are wanted; nothing where they are as many."""
    return "" if before == after else f"{'padded' if before < after else 'truncated'} to {after}"


def kind_in_words(gate: Gate) -> str:
    """Return a gate's kind with its options: `lowrank of rank 4`, `pauli of 1 layer, K' 4`, `orthogonal by exp`."""
    return gate.kind + options_in_words(gate)


def options_in_words(gate: Gate) -> str:
    """Return what is to be said after a gate's kind, with a blank in front; nothing for most."""
    words = ""
    if gate.rank is not None:
        words += f" of rank {gate.rank}"
    if gate.map is not None:
        words += f" by {gate.map}"
    if gate.layers is not None:
        words += f" of {gate.layers} layer{'' if gate.layers == 1 else 's'}"
    return words if gate.rank_parameters is None else f"{words}, K' {gate.rank_parameters}"
