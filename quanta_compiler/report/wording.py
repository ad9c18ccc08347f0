"""What several texts say in the same words."""

from __future__ import annotations

from collections.abc import Sequence

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


_LEGEND = {
    "ry": "RY: turns an axis of size 2 by its angle",
    "cz": "cz: turns the sign where both axes are at their last index",
    "orthogonal": "O: an orthogonal matrix, by exp or cayley",
    "pauli": "pauli: an orthogonal matrix, L layers of RY and CZ",
}
_KEPT = "K': rank_parameters, which trains a part of the angles"


def legend(gates: Sequence[Gate]) -> tuple[tuple[str, str], ...]:
    """Return what a picture of these gates has to explain, as pairs of a kind (or nothing) and a line."""
    kinds = {gate.kind for gate in gates}
    lines = [(kind, line) for kind, line in _LEGEND.items() if kind in kinds]
    if any(gate.rank_parameters is not None for gate in gates):
        lines.append(("", _KEPT))
    return tuple(lines)
