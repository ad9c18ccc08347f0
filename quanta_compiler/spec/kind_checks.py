"""What holds between the kind of a gate and the axes that it acts on."""

from __future__ import annotations

from quanta_compiler.diagnostics import Problems
from quanta_compiler.spec.circuit_spec import GateSpec
from quanta_compiler.spec.drafts import Draft
from quanta_compiler.spec.matrices import matrix_shape
from quanta_compiler.spec.rotations import cosine_sine_angles, is_power_of_two, pauli_angles, widest_column

SAME_AXES_KINDS = ("diagonal", "ry", "cz")
"""Kinds that leave their axes as they are."""


def check_kind(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> bool:
    """Report what is wrong with a gate of its kind on its axes, and say whether nothing is.

    `label` is what messages call the gate. A gate that shares a parameter is of its owner's kind.
    """
    if spec.kind == "diagonal" and spec.to != spec.axes:
        message = f"{label} is diagonal and cannot change its axes"
        problems.error(draft.at("to"), message, "leave `to` out, or use `kind: dense`")
        return False
    if spec.share is not None:
        # The rest was checked at the gate that has the parameter: all that counts here is the shape of the matrix.
        return True
    if spec.kind == "constant":
        return _check_value(draft, label, spec, problems)
    if spec.kind == "lowrank":
        _warn_about_rank(draft, label, spec, problems)
    if spec.kind == "ry":
        return _check_ry(draft, label, spec, problems)
    if spec.kind == "cz" and len(spec.axes) != 2:
        message = f"{label} is a `cz` gate, which acts on two axes, and has {_count(spec)}"
        problems.error(draft.at("axes"), message, "name both axes, such as `axes: [0, 1]`")
        return False
    if spec.kind in ("orthogonal", "pauli"):
        return _check_sides(draft, label, spec, problems) and _check_rank_parameters(draft, label, spec, problems)
    return True


def _count(spec: GateSpec) -> str:
    return "one" if len(spec.axes) == 1 else str(len(spec.axes))


def _check_value(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> bool:
    """Check that the matrix of a constant gate fits its axes."""
    rows, columns = matrix_shape(spec)[-2:]
    value = spec.value or ((),)
    if (len(value), len(value[0])) == (rows, columns):
        return True
    given = f"{len(value)} x {len(value[0])}"
    message = f"`value` of {label} is {given}, but its axes need {rows} x {columns} (rows x columns)"
    problems.error(draft.at("value"), message)
    return False


def _warn_about_rank(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> None:
    rows, columns = matrix_shape(spec)[-2:]
    if spec.rank is not None and spec.rank > min(rows, columns):
        message = f"rank {spec.rank} of {label} is more than its matrix can have ({rows} x {columns})"
        problems.warning(draft.at("rank"), message, "`kind: dense` has fewer parameters")


def _check_ry(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> bool:
    if len(spec.axes) != 1:
        message = f"{label} is an `ry` gate, which acts on one axis, and has {_count(spec)}"
        problems.error(draft.at("axes"), message, "write one gate for each axis, or use `kind: orthogonal`")
        return False
    (axis,) = spec.axes
    if axis.size != 2:
        message = f"{label} is an `ry` gate, which turns an axis of size 2, and axis {_shown(axis.name)} has size "
        hint = "`kind: orthogonal` and `kind: pauli` turn axes of any size"
        problems.error(draft.at("axes", 0), f"{message}{axis.size}", hint)
        return False
    return True


def _check_sides(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> bool:
    """Refuse an orthogonal matrix of which one axis asks for more rows and another for fewer.

    Such a matrix can be had in two ways: as one matrix on the flattened axes, or as a tall one after a wide one.
    """
    before = {axis.name: axis.size for axis in spec.axes}
    kept = [axis for axis in spec.to if axis.name in before]
    wide = next((axis for axis in kept if axis.size < before[axis.name]), None)
    tall = next((axis for axis in kept if axis.size > before[axis.name]), None)
    if wide is None or tall is None:
        return True
    shrinks = f"axis {_shown(wide.name)} shrinks from {before[wide.name]} to {wide.size}"
    grows = f"axis {_shown(tall.name)} grows from {before[tall.name]} to {tall.size}"
    message = f"{label} of kind `{spec.kind}` is asked to be both wide and tall: {shrinks}, and {grows}"
    hint = "write two gates, or give the axes new names in `to` for one matrix on both together"
    problems.error(draft.at("to"), message, hint)
    return False


def _check_rank_parameters(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> bool:
    """Check K' against the most columns, or angles of a column, that there are."""
    rows, columns = matrix_shape(spec)[-2:]
    given = spec.rank_parameters
    largest = min(rows, columns) if spec.kind == "orthogonal" else widest_column(max(rows, columns))
    if given is None or given <= largest:
        return True
    has = f"its {rows} x {columns} matrix has {_plural(largest, 'column')} of Lie parameters"
    if spec.kind == "pauli":
        has = f"no column of its circuit has more than {_plural(largest, 'angle')}"
    message = f"`rank_parameters` of {label} is {given}, and {has}"
    hint = f"write at most {largest}, or leave it out to train all" if largest else "leave it out"
    problems.error(draft.at("rank_parameters"), message, hint)
    return False


def warn_about_pairs(draft: Draft, label: str, spec: GateSpec, problems: Problems) -> None:
    """Warn of a `pauli` gate of a size whose angles are mostly as many as the size."""
    larger = max(matrix_shape(spec)[-2:])
    if spec.kind != "pauli" or is_power_of_two(larger):
        return
    message, hint = told_pairs(larger, spec, label)
    problems.warning(draft.at("axes"), message, f"{hint}; pad to it, or act on axes whose sizes are powers of two")


def told_pairs(size: int, spec: GateSpec, whose: str) -> tuple[str, str]:
    """Say how many of the angles of `whose` matrix turn pairs, and what the next power of two takes."""
    layers = spec.layers or 0
    pairs = cosine_sine_angles(size, spec.rank_parameters)
    angles = pauli_angles(size, layers, spec.rank_parameters)
    powers = " + ".join(str(1 << bit) for bit in reversed(range(size.bit_length())) if size >> bit & 1)
    turn = "turns a pair" if pairs == 1 else "turn pairs"
    message = (
        f"{pairs:,} of the {angles:,} angles of {whose} {turn} of {size} = {powers}: "
        "this part grows with the size, not with its logarithm"
    )
    above = 1 << size.bit_length()
    return message, f"a size of {above} takes {pauli_angles(above, layers, spec.rank_parameters)} angles"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _shown(name: str) -> str:
    return name if name.isdigit() else f"'{name}'"
