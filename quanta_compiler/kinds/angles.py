"""What kinds of gates have in common whose matrix is orthogonal and made of angles, or of entries of a Lie algebra."""

from collections.abc import Iterator

from quanta_compiler.kinds.kind import Complaint, Sides, shown
from quanta_compiler.kinds.limits import WIDTH
from quanta_compiler.kinds.options import Integer, Key

RANK_PARAMETERS = Key(
    Integer(1, WIDTH),
    "How many columns of the Lie parameters are trained, or angles of each column of a circuit.",
    hint="leave it out to train all",
    words=lambda kept: f", K' {kept}",
    note=lambda kept: f"K'={kept}",
    legend="K': rank_parameters, which trains a part of the angles",
)
"""K', of Quantum-PEFT (Koike-Akino et al. 2025)."""


def check_sides(gate: Sides, label: str, kind: str) -> Iterator[Complaint]:
    """Refuse an orthogonal matrix of which one axis asks for more rows and another for fewer.

    Such a matrix can be had in two ways: as one matrix on the flattened axes, or as a tall one after a wide one.
    """
    before = {axis.name: axis.size for axis in gate.axes}
    kept = [axis for axis in gate.to if axis.name in before]
    wide = next((axis for axis in kept if axis.size < before[axis.name]), None)
    tall = next((axis for axis in kept if axis.size > before[axis.name]), None)
    if wide is None or tall is None:
        return
    shrinks = f"axis {shown(wide)} shrinks from {before[wide.name]} to {wide.size}"
    grows = f"axis {shown(tall)} grows from {before[tall.name]} to {tall.size}"
    message = f"{label} of kind `{kind}` is asked to be both wide and tall: {shrinks}, and {grows}"
    hint = "write two gates, or give the axes new names in `to` for one matrix on both together"
    yield Complaint(("to",), message, hint)


def check_kept(given: int | None, largest: int, has: str, label: str) -> Iterator[Complaint]:
    """Check K' against the most columns, or angles of a column, that there are."""
    if given is not None and given > largest:
        hint = f"write at most {largest}, or leave it out to train all" if largest else "leave it out"
        yield Complaint(("rank_parameters",), f"`rank_parameters` of {label} is {given}, and {has}", hint)


def lie_numbers(size: int, columns: int, kept: int | None = None) -> int:
    """Return how many entries of a skew-symmetric n x n matrix give an orthogonal matrix's first k columns.

    Those below the diagonal in its first k columns: n k - k (k + 1) / 2; of fewer columns where only `kept` train.
    """
    trained = columns if kept is None else min(kept, columns)
    return size * trained - trained * (trained + 1) // 2
