"""What several texts say in the same words."""

from collections.abc import Sequence

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds import KINDS


def resized(before: int, after: int) -> str:
    """Say what happens to a vector of `before` numbers where `after` are wanted; nothing where they are as many."""
    return "" if before == after else f"{'padded' if before < after else 'truncated'} to {after}"


def legend(gates: Sequence[Gate]) -> tuple[tuple[str, str], ...]:
    """Return what a picture of these gates has to explain, as pairs of a kind (or nothing) and a line."""
    drawn = {gate.kind: gate.matrix.look.legend for gate in gates}
    order = dict.fromkeys((*KINDS, *drawn))
    lines = tuple((name, line) for name in order if (line := drawn.get(name)) is not None)
    kept = {key.legend: None for gate in gates for key in gate.matrix.given_options() if key.legend is not None}
    return (*lines, *(("", line) for line in kept))
