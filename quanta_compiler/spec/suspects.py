"""Warnings of what compiles, but can hardly be meant: gates that are one matrix, and axes that nothing mixes."""

import math
from collections.abc import Iterable, Iterator, Sequence

from quanta_compiler.diagnostics import REACH, DataPath, Problems
from quanta_compiler.kinds.kind import AxisSize, Form
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec


def warn_about_suspects(spec: CircuitSpec, paths: Sequence[DataPath], problems: Problems) -> None:
    """Warn of what can hardly be meant; `paths` are where the gates stand in the file."""
    _warn_about_pairs(spec, paths, problems)
    _warn_about_axes(spec, problems)


def _warn_about_pairs(spec: CircuitSpec, paths: Sequence[DataPath], problems: Problems) -> None:
    """Warn of gates in a row on the same axes whose product one of them could be by itself."""
    shared = {gate.share for gate in spec.gates}
    pairs: list[tuple[int, int, int]] = []
    for first, second in _in_a_row(spec.gates):
        both = spec.gates[first], spec.gates[second]
        if all(gate.matrix.trains and not gate.frozen and not gate.share for gate in both):
            enough = _enough(*both)
            if enough is not None and shared.isdisjoint(gate.name for gate in both):
                pairs.append((first, second, enough))
    if not pairs:
        return
    first, second, enough = pairs[0]
    before, after = spec.gates[first], spec.gates[second]
    numbers = before.numbers + after.numbers
    others = len(pairs) - 1
    more = f" (likewise {others} more {'pairs' if others > 1 else 'pair'})" if others else ""
    message = (
        f"gates {before.name!r} and {after.name!r} act on {_named(after.axes)} with nothing between{more}: "
        f"they are one matrix, for which {enough:,} numbers are enough, and train {numbers:,}"
    )
    problems.warning(paths[second], message, "leave one of the two out, or put a gate on other axes between them")


def _in_a_row(gates: Sequence[GateSpec]) -> Iterator[tuple[int, int]]:
    """Yield the places of two gates on the same axes between which none touches any of these axes."""
    last: dict[str, int] = {}
    for place, gate in enumerate(gates):
        axes, per = _names(gate.axes), _names(gate.per)
        before = {last.get(name) for name in axes | per}
        earlier = next(iter(before))
        if earlier is not None and len(before) == 1 and axes == _names(gate.to):
            other = gates[earlier]
            if _names(other.axes) == _names(other.to) == axes and _names(other.per) == per:
                yield earlier, place
        last.update(dict.fromkeys((*axes, *_names(gate.to), *per), place))


def _enough(first: GateSpec, second: GateSpec) -> int | None:
    """Return how many numbers one gate needs for what the product of two can be; None where it is no such gate's."""
    both = first, second
    *blocks, _, columns = first.shape
    rows, count = second.shape[-2], math.prod(blocks)
    ranks = [gate.matrix.largest_rank(*gate.shape[-2:]) for gate in both]
    are_alike = first.kind == second.kind and first.shape == second.shape
    if are_alike and all(gate.matrix.holds_products(rows, columns) for gate in both):
        return first.numbers
    if any(gate.matrix.is_diagonal for gate in both):
        # Beside a matrix it is a parametrization that is chosen (AdaLoRA, a magnitude per output), and costs little.
        return None
    factors = [rank for gate, rank in zip(both, ranks, strict=True) if gate.form is Form.FACTORS]
    if min(ranks) in factors:
        return count * min(min(ranks) * (rows + columns), rows * columns)
    is_any = any(gate.form is Form.MATRIX for gate in both)
    return count * rows * columns if is_any and min(ranks) >= min(rows, columns) else None


def _warn_about_axes(spec: CircuitSpec, problems: Problems) -> None:
    """Warn of axes that stay as they are from the input to the output, so that blocks of the operator are zero."""
    mixing = {name for gate in spec.gates if not gate.matrix.is_diagonal for name in _names(gate.axes)}
    if not mixing:
        # All gates scale: that is what the circuit is for.
        return
    touched = {name for gate in spec.gates for name in (*_names(gate.axes), *_names(gate.per))}
    still = [axis for axis in spec.layout if axis.size > 1 and axis.name not in mixing]
    if not still:
        return
    width = math.prod(axis.size for axis in spec.layout)
    seen = width // math.prod(axis.size for axis in still)
    idle = [axis for axis in still if axis.name not in touched]
    fault = f"no gate acts on {_named(idle)}" if idle else f"no gate mixes along {_named(still)}"
    message = f"{fault}: every output depends on at most {seen:,} of {width:,} inputs"
    repair = "name them in the `axes` of a gate" if len(idle or still) > 1 else "name it in the `axes` of a gate"
    problems.warning(("gates",), message, f"{repair}; `all_pairs` acts on every axis", topic=REACH)


def _names(axes: Iterable[AxisSize]) -> set[str]:
    return {axis.name for axis in axes}


def _named(axes: Sequence[AxisSize]) -> str:
    shown = [f"{axis.name} (size {axis.size})" for axis in axes[:4]]
    more = f" and {len(axes) - 4} more" if len(axes) > 4 else ""
    return ("axes " if len(axes) > 1 else "axis ") + (", " if more else " and ").join(shown) + more
