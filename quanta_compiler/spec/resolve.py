"""Models to CircuitSpec: names, axes, sizes and everything else that holds between the parts of a file."""

import math
from dataclasses import replace
from typing import Any

from quanta_compiler.diagnostics import DataPath, Problems
from quanta_compiler.kinds import limits
from quanta_compiler.kinds.initialisers import ENTRIES
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.presets.layouts import AUTO_RULE, Layout
from quanta_compiler.spec.axes import AxisState, find_all
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec, Init
from quanta_compiler.spec.document import Document
from quanta_compiler.spec.drafts import Draft, draft_pattern, read_item
from quanta_compiler.spec.gates import GateResolver
from quanta_compiler.spec.suspects import warn_about_axes, warn_about_fitting, warn_about_pairs, warn_about_waste


def resolve(
    document: Document,
    problems: Problems,
    in_features: int | None = None,
    out_features: int | None = None,
    auto_rule: int = AUTO_RULE,
) -> CircuitSpec | None:
    """Resolve a document; None (or an incomplete spec) where problems were reported.

    `in_features` and `out_features` are the sizes for a template (`{auto: N}` without `in_features`); other files
    keep their own. `auto_rule` is the rule by which `{auto: N}` chooses.
    """
    file = document.file
    is_template = file.layout.auto is not None and file.in_features is None and "in_features" not in document.unreadable
    wanted_in, wanted_out = file.in_features, file.out_features
    width = wanted_in
    if is_template and in_features is not None:
        wanted_in = in_features
        wanted_out = out_features if out_features is not None else wanted_out
        width = max(in_features, out_features or 0)
    if wanted_out is None and file.layout.auto is not None:
        wanted_out = wanted_in
    state = _input_state(document, replace(file.layout, rule=auto_rule), width, problems)
    gates, paths = _resolve_gates(document, state, problems)
    output = _output(document, state, problems)
    product = math.prod(axis.size for axis in state.layout)
    final = state.product(state.sizes)
    if problems.has_errors:
        return None
    assert gates is not None
    assert output is not None
    assert final is not None
    spec = CircuitSpec(
        name=file.name,
        layout=state.layout,
        positional=state.positional,
        in_features=wanted_in if wanted_in is not None else product,
        out_features=wanted_out if wanted_out is not None else final,
        gates=gates,
        output=output,
        tokens=file.plan.tokens,
        optimizer=file.plan.optimizer,
    )
    if is_template:
        warn_about_fitting(spec, problems)
    else:
        warn_about_waste(spec, file.layout, file.out_features, problems)
    _warn_about_zeros(spec, problems)
    warn_about_pairs(spec, paths, problems)
    warn_about_axes(spec, problems)
    return spec


def _input_state(document: Document, layout: Layout, width: int | None, problems: Problems) -> AxisState:
    """Return the axes of the input layout; an unknown state where the layout could not be read."""
    unknown = AxisState((), (), True)
    unknown.known = False
    if "layout" in document.unreadable:
        return unknown
    sizes = layout.sizes
    if layout.auto is not None:
        if width is None:
            if "in_features" not in document.unreadable:
                hint = "add `in_features`, or use the file as a template in an adapter"
                message = (
                    "`{auto: N}` needs `in_features`; without it the file is a template, which only adapters accept"
                )
                problems.error(("layout",), message, hint)
            return unknown
        sizes = layout.sizes_for(width)
        if refuse_many_axes(layout, sizes, problems):
            return unknown
    names = layout.names or tuple(str(index) for index in range(len(sizes)))
    state = AxisState(names, sizes, layout.names is None)
    product = math.prod(sizes)
    if product > limits.WIDTH:
        message = f"the layout {state.layout_text} has a product beyond the limit of {limits.WIDTH}"
        problems.error(("layout",), message)
    return state


def refuse_many_axes(layout: Layout, sizes: tuple[int, ...], problems: Problems) -> bool:
    """Report `{auto: N}` where N axes are too many for any circuit."""
    if layout.auto is None or math.prod(sizes) <= limits.WIDTH:
        return False
    message = f"a layout of {layout.auto} axes of 2 and more is wider than the limit of {limits.WIDTH}"
    problems.error(("layout",), message, f"choose at most {limits.WIDTH.bit_length() - 1} axes")
    return True


def _resolve_gates(
    document: Document, state: AxisState, problems: Problems
) -> tuple[tuple[GateSpec, ...] | None, tuple[DataPath, ...]]:
    """Resolve all gates in order, and say where each stands; the state is afterwards that of the output."""
    resolver = GateResolver(state, document.file.init or Init(ENTRIES[0]), problems)
    used = 0
    for index, item in enumerate(document.file.gates):
        if index in document.broken:
            resolver.skip(document.broken[index])
            used += 1
            continue
        if "gates" in document.unreadable:
            state.known = False
            state.forget_sizes()
            break
        entry = read_item(item, ("gates", index))
        if isinstance(entry, Draft):
            resolver.add(entry, judge=index not in document.unjudged)
            used += 1
            continue
        drafts = draft_pattern(entry, state, limits.GATES - used, problems)
        if drafts is None:
            resolver.skip_pattern(bool(entry.to))
            continue
        used += len(drafts)
        for draft in drafts:
            resolver.add(draft, judge=index not in document.unjudged)
    if used > limits.GATES:
        problems.error(("gates",), f"the circuit has {used:,} gates; the limit is {limits.GATES:,}")
    return resolver.finish(), tuple(entry.draft.path for entry in resolver.entries if entry.draft)


def _output(document: Document, state: AxisState, problems: Problems) -> tuple[AxisSize, ...] | None:
    wanted = document.file.output
    if wanted is None:
        order = list(state.sizes)
    else:
        order, complete = find_all(state, wanted, "`output` names", ("output",), problems)
        absent = [name for name in state.sizes if name not in order and name not in state.doubtful]
        if complete and absent and state.known:
            listed = ", ".join(state.show(name) for name in absent[:8]) + (", …" if len(absent) > 8 else "")
            message = f"`output` leaves out axis {listed}" if len(absent) == 1 else f"`output` leaves out axes {listed}"
            problems.error(("output",), message, "it is the order of all final axes")
            return None
    sizes: list[Any] = [state.sizes[name] for name in order]
    if any(size is None for size in sizes):
        return None
    return tuple(AxisSize(name, size) for name, size in zip(order, sizes, strict=True))


def _warn_about_zeros(spec: CircuitSpec, problems: Problems) -> None:
    """Warn of a circuit that cannot learn: where two factors of a product are zero, every gradient is."""
    # At zero angles an orthogonal gate is not zero.
    drawn = (gate for gate in spec.gates if gate.init is not None and not gate.matrix.stores_angles)
    zero = {gate.name for gate in drawn if gate.init == Init("zeros")}
    # A gate that shares a parameter is another factor.
    factors = [gate.name for gate in spec.gates if gate.name in zero or gate.share in zero]
    if len(factors) > 1:
        named = " and ".join(map(repr, factors[:2])) + (f" (and {len(factors) - 2} more)" if factors[2:] else "")
        message = f"gates {named} start at zero: every gradient is zero then, and the circuit never trains"
        problems.warning(("gates",), message, "start one gate at zero, and draw the others")
