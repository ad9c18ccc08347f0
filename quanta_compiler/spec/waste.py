"""Warnings of layouts that waste a part of what is computed; each names a better one, where there is one."""

import math

from quanta_compiler.diagnostics import Problems
from quanta_compiler.kinds.initialisers import ENTRIES
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.presets.layouts import Layout, auto_layout, exact_layout, pair_numbers
from quanta_compiler.spec.axes import layout_text
from quanta_compiler.spec.circuit_spec import CircuitSpec

_MUCH = 0.01
"""More padding than `{auto: N}` looks for."""


def warn_about_fitting(spec: CircuitSpec, problems: Problems) -> None:
    """Warn where a template finds no layout for the larger of the two sizes; the smaller is padded in any case."""
    width, sizes = max(spec.in_features, spec.out_features), tuple(axis.size for axis in spec.layout)
    if math.prod(sizes) != width:
        message, hint = padding_of(width, sizes)
        problems.warning(("layout",), message, hint)


def padding_of(width: int, sizes: tuple[int, ...]) -> tuple[str, str | None]:
    """Return what to say of a layout that the compiler has chosen and that is wider than it should be."""
    product = math.prod(sizes)
    waste = f"{product - width} of {product} numbers ({percent(product - width, product)}) are zeros"
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
        waste = f"{product - given} of {product} inputs ({percent(product - given, product)}) are always zero"
        problems.warning(path, f"in_features {given} is padded to {product} ({shape}): {waste}", hint)
    elif given > product:
        waste = f"the last {given - product} of {given} inputs ({percent(given - product, given)}) are ignored"
        problems.warning(path, f"in_features {given} is truncated to {product} ({shape}): {waste}", hint)
    told = chosen and given == spec.out_features and spec.output == spec.layout
    if not told:
        _warn_about_outputs(spec, problems)


def _warn_about_outputs(spec: CircuitSpec, problems: Problems) -> None:
    shape = _shape(spec.output, spec.positional)
    given, product = spec.out_features, math.prod(axis.size for axis in spec.output)
    hint = _rectangular(spec) or _better_layout(spec, max(given, spec.in_features))
    if given < product:
        waste = f"{percent(product - given, product)} of what the circuit computes is dropped"
        problems.warning(("out_features",), f"out_features {given} keeps {given} of {product} outputs: {waste}", hint)
    elif given > product:
        waste = f"{given - product} of {given} outputs ({percent(given - product, given)}) are always zero"
        problems.warning(("out_features",), f"out_features {given} pads {product} outputs ({shape}): {waste}", hint)


def _other_layout(width: int, sizes: tuple[int, ...]) -> str | None:
    """Return a layout beside the padded one of `{auto: N}`: one that is not padded, or one of fewer axes."""
    if math.prod(sizes) == width:
        return None
    exact = exact_layout(width, len(sizes))
    if exact is not None:
        times = pair_numbers(exact) / pair_numbers(sizes)
        return f"`layout: {_text(exact)}` is not padded, but has {times:.3g} times the numbers for `all_pairs`"
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


def percent(part: int, whole: int) -> str:
    """Write a share with about three figures, so that it is never shown as nothing or all."""
    value = 100 * part / whole
    if value < 0.05:
        return f"{value:.2g} %"
    return f"{value:.1f} %" if value < 99.95 else f"{min(value, 99.99):.2f} %"


def _text(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _shape(axes: tuple[AxisSize, ...], positional: bool) -> str:
    plain = positional and all(axis.name.isdigit() for axis in axes)
    return layout_text((axis.name for axis in axes), (axis.size for axis in axes), plain) if axes else "no axes"
