"""Warnings of what compiles, but can hardly be meant: gates that are one matrix, axes that nothing mixes, waste."""

import math
from collections.abc import Iterable, Iterator, Sequence

from quanta_compiler.diagnostics import REACH, DataPath, Problems
from quanta_compiler.kinds.initialisers import ENTRIES
from quanta_compiler.kinds.kind import AxisSize, Form
from quanta_compiler.presets.layouts import Layout, auto_layout, exact_layout, pair_numbers
from quanta_compiler.spec.axes import layout_text
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec
from quanta_compiler.text.quantities import percent_text, times_text

_MUCH = 0.01
"""More padding than `{auto: N}` looks for."""


def warn_about_pairs(spec: CircuitSpec, paths: Sequence[DataPath], problems: Problems) -> None:
    """Warn of gates in a row on the same axes that one could be by itself; `paths` are where the gates stand."""
    shared = {gate.share for gate in spec.gates}
    pairs: list[tuple[int, int, int]] = []
    for first, second in _in_a_row(spec.gates):
        both = spec.gates[first], spec.gates[second]
        if all(gate.matrix.trains and not gate.frozen and not gate.share for gate in both):
            enough = _enough(*both)
            # Where other layers have one of the two as well, the product is not theirs.
            is_one = both[0].across == both[1].across and shared.isdisjoint(gate.name for gate in both)
            if enough is not None and is_one:
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


def warn_about_axes(spec: CircuitSpec, problems: Problems) -> None:
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
    if not idle and all(gate.matrix.stores_angles for gate in spec.gates):
        # All gates turn: blocks that turn what a layer reads are what OFT is.
        return
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


def warn_about_fitting(spec: CircuitSpec, problems: Problems) -> None:
    """Warn where a template finds no layout for the larger of the two sizes; the smaller is padded in any case."""
    width, sizes = max(spec.in_features, spec.out_features), tuple(axis.size for axis in spec.layout)
    if math.prod(sizes) != width:
        message, hint = padding_of(width, sizes)
        problems.warning(("layout",), message, hint)


def padding_of(width: int, sizes: tuple[int, ...]) -> tuple[str, str | None]:
    """Return what to say of a layout that the compiler has chosen and that is wider than it should be."""
    product = math.prod(sizes)
    waste = f"{product - width} of {product} numbers ({_share(product - width, product)}) are zeros"
    return f"{width} is padded to {product} ({_text(sizes)}): {waste}", _other_layout(width, sizes)


def warn_about_waste(spec: CircuitSpec, layout: Layout, out_features: int | None, problems: Problems) -> None:
    """Warn where padding or truncation wastes a part of what is computed; `out_features` as the file writes it."""
    sizes = tuple(axis.size for axis in spec.layout)
    given, product = spec.in_features, math.prod(sizes)
    shape = _shape(spec.layout, spec.positional)
    chosen = layout.auto is not None
    hint = _other_layout(given, sizes) if chosen else _better_layout(spec, max(given, out_features or 0), given)
    path = ("layout",) if chosen and given != product else ("in_features",)
    if given < product:
        waste = f"{product - given} of {product} inputs ({_share(product - given, product)}) are always zero"
        problems.warning(path, f"in_features {given} is padded to {product} ({shape}): {waste}", hint)
    elif given > product:
        waste = f"the last {given - product} of {given} inputs ({_share(given - product, given)}) are ignored"
        problems.warning(path, f"in_features {given} is truncated to {product} ({shape}): {waste}", hint)
    told = chosen and given == spec.out_features and spec.output == spec.layout
    if not told:
        _warn_about_outputs(spec, problems)


def _warn_about_outputs(spec: CircuitSpec, problems: Problems) -> None:
    shape = _shape(spec.output, spec.positional)
    given, product = spec.out_features, math.prod(axis.size for axis in spec.output)
    hint = _rectangular(spec) or _better_layout(spec, max(given, spec.in_features))
    if given < product:
        waste = f"{_share(product - given, product)} of what the circuit computes is dropped"
        problems.warning(("out_features",), f"out_features {given} keeps {given} of {product} outputs: {waste}", hint)
    elif given > product:
        waste = f"{given - product} of {given} outputs ({_share(given - product, given)}) are always zero"
        problems.warning(("out_features",), f"out_features {given} pads {product} outputs ({shape}): {waste}", hint)


def _other_layout(width: int, sizes: tuple[int, ...]) -> str | None:
    """Return a layout beside the padded one of `{auto: N}`: one that is not padded, or one of fewer axes."""
    if math.prod(sizes) == width:
        return None
    exact = exact_layout(width, len(sizes))
    if exact is not None:
        times = pair_numbers(exact) / pair_numbers(sizes)
        return f"`layout: {_text(exact)}` is not padded, but has {times_text(times)} the numbers for `all_pairs`"
    if math.prod(sizes) - width <= width * _MUCH:
        return None
    fewer = [auto_layout(width, count) for count in range(2, len(sizes))]
    best = min(fewer, key=lambda other: (math.prod(other), -len(other)), default=sizes)
    if math.prod(best) >= math.prod(sizes):
        return None
    return f"`{{auto: {len(best)}}}` is {math.prod(best)} wide ({_text(best)})"


def _better_layout(spec: CircuitSpec, width: int, given: int | None = None) -> str | None:
    """Return the layout of as many axes that suits a width better than the written one, None where there is none.

    `given` is a width that must be suited no worse for it.
    """
    is_square = [axis.size for axis in spec.layout] == [axis.size for axis in spec.output]
    if not is_square or any(not gate.matrix.any_size or gate.share for gate in spec.gates):
        return None
    sizes = auto_layout(width, len(spec.layout))
    product, now = math.prod(sizes), math.prod(axis.size for axis in spec.layout)
    if any(abs(product - one) >= abs(now - one) for one in (width, width if given is None else given)):
        return None
    named = ", ".join(f"{axis.name}: {size}" for axis, size in zip(spec.layout, sizes, strict=True))
    return f"`layout: {_text(sizes) if spec.positional else f'{{{named}}}'}` is {product} wide"


def _rectangular(spec: CircuitSpec) -> str | None:
    """Return how a rectangular gate makes exactly the outputs that are wanted."""
    product = math.prod(axis.size for axis in spec.output)
    for axis in spec.output:
        new, left = divmod(axis.size * spec.out_features, product)
        last = next((gate for gate in reversed(spec.gates) if axis in gate.to or axis in gate.per), None)
        can_grow = last and last.matrix.schemes == ENTRIES and last.matrix.may_resize
        if new and not left and last and can_grow and axis in last.to and not last.share:
            sizes = [new if one == axis else one.size for one in last.to]
            return f"`to: {sizes}` at gate {last.name!r} makes {spec.out_features} outputs"
    return None


def _share(part: int, whole: int) -> str:
    return percent_text(100 * part / whole)


def _text(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _shape(axes: tuple[AxisSize, ...], positional: bool) -> str:
    plain = positional and all(axis.name.isdigit() for axis in axes)
    return layout_text((axis.name for axis in axes), (axis.size for axis in axes), plain) if axes else "no axes"
