"""Entries of `gates` as single gates: patterns written out, forms made one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.diagnostics import DataPath, Problems
from quanta_compiler.kinds import DEFAULT, limits
from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.plugins import find_kind
from quanta_compiler.presets.layouts import auto_layout
from quanta_compiler.spec.axes import Absent, AxisState, find_all
from quanta_compiler.spec.circuit_spec import Init
from quanta_compiler.spec.patterns import PATTERNS, options_of
from quanta_compiler.spec.values import AxisRef


@dataclass(frozen=True, slots=True)
class Draft:
    """One gate as the file asks for it, before its axes are looked up."""

    path: DataPath
    axes: tuple[AxisRef, ...]
    to: tuple[int, ...] | dict[AxisRef, int] | None = None
    per: tuple[AxisRef, ...] | str = ()
    name: str | None = None
    matrix: Kind = DEFAULT
    init: Init | None = None
    frozen: bool = False
    across: str | None = None
    share: str | None = None
    transpose: bool = False
    whole: bool = False
    """The gate comes from a pattern and has no parts of its own in the file: its problems are shown at the entry."""
    bare: bool = False
    """The gate is a bare list of axes."""

    def at(self, *steps: str | int) -> DataPath:
        """Return where in the file a problem with a part of the gate is shown."""
        if self.whole:
            return self.path
        return (*self.path, *(steps[1:] if self.bare else steps))


@dataclass(frozen=True, slots=True)
class PatternRequest:
    """A pattern as the file asks for it."""

    path: DataPath
    pattern: str
    repeat: int = 1
    matrix: Kind = DEFAULT
    axes: tuple[AxisRef, ...] | None = None
    to: dict[AxisRef, int] | None = None
    per: str | None = None
    init: Init | None = None
    frozen: bool = False
    across: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """The pattern's own, as far as they are given."""


def read_item(item: Any, path: DataPath) -> Draft | PatternRequest:
    """Bring an entry of `gates`, as the models hold it, into one form."""
    if isinstance(item, str):
        return PatternRequest(path, item)
    if isinstance(item, tuple):
        return Draft(path, item, bare=True)
    fields = {name: getattr(item, name) for name in type(item).model_fields}
    if "kind" in fields:
        kind = find_kind(fields.pop("kind"))
        assert kind is not None, "the models know no other"
        fields["matrix"] = kind(**{name: fields.pop(name) for name in kind.options()})
    if "pattern" not in fields:
        return Draft(path, **fields)
    own = {name: fields.pop(name) for name in PATTERNS[fields["pattern"]].options}
    return PatternRequest(path, **fields, options=own)


def draft_pattern(request: PatternRequest, state: AxisState, room: int, problems: Problems) -> list[Draft] | None:
    """Write a pattern out as at most `room` gates; None after an error."""
    rule, options = PATTERNS[request.pattern], options_of(request.pattern, request.options)
    names = _pattern_axes(request, state, problems)
    if names is None or not _fits(request, problems):
        return None
    count = rule.count(len(names), **options) * request.repeat
    if count == 0:
        have = "one axis" if len(names) == 1 else f"{len(names)} axes"
        message = f"pattern `{request.pattern}` yields no gate on {have}"
        width = math.prod(state.sizes[name] or 1 for name in names)
        sizes = auto_layout(width, max(rule.fewest_axes, 3)) if width >= 8 else ()
        example = f", such as `layout: {'x'.join(map(str, sizes))}`" if math.prod(sizes) == width else ""
        problems.error(request.path, message, f"it needs at least {rule.fewest_axes} axes{example}")
        return None
    if count > room:
        key = "repeat" if request.repeat > 1 else next((name for name, value in request.options.items() if value), None)
        path = (*request.path, key) if key else request.path
        message = f"pattern `{request.pattern}` yields {count:,} gates; a circuit is limited to {limits.GATES:,}"
        problems.error(path, message)
        return None
    before = [state.sizes[name] for name in names]
    listed = (gate for _ in range(request.repeat) for gate in rule.gates(before, **options))
    gates = [(tuple(names[i] for i in axes), kind) for axes, kind in listed]
    targets = _pattern_targets(request, state, names, problems)
    if targets is None:
        return None
    return list(_drafts(request, state, gates, targets))


def _fits(request: PatternRequest, problems: Problems) -> bool:
    path, rule = request.path, PATTERNS[request.pattern]
    kind, wanted = request.matrix.name, request.matrix.axes_in_patterns or rule.axes
    if rule.kinds or wanted == rule.axes:
        return True
    has, acts = ("one axis", "two") if rule.axes == 1 else ("two axes", "one")
    others = [f"`{name}`" for name, other in PATTERNS.items() if other.axes == wanted and not other.kinds]
    hint = f"{' and '.join([', '.join(others[:-1]), others[-1]])} have gates on two"
    if wanted == 1:
        hint = f"{others[0]} has a gate on every axis"
    message = f"pattern `{request.pattern}` has gates on {has}; a gate of kind `{kind}` acts on {acts}"
    problems.error((*path, "kind"), message, hint)
    return False


def _pattern_axes(request: PatternRequest, state: AxisState, problems: Problems) -> list[str] | None:
    if not state.names:
        return None
    if request.axes is None:
        gone = [name for name in state.names if not state.original(name)]
        if not gone:
            return list(state.names)
        # Reported for the first one only: the others have the same remedy.
        absent = state.find(state.names.index(gone[0]), f"pattern `{request.pattern}` acts on")
        assert isinstance(absent, Absent)
        hint = "`axes:` restricts a pattern to the axes that are left"
        problems.error(request.path, absent.message or "an axis is gone", hint)
        return None
    path = (*request.path, "axes")
    user = f"pattern `{request.pattern}` acts on"
    names, complete = find_all(state, request.axes, user, path, problems)
    for index, name in enumerate(names if complete else ()):
        if not state.original(name):
            message = f"{user} axis {state.show(name)}, which {state.creator(name)} created"
            problems.error((*path, index), message, "patterns run over axes of the input layout; write the gates out")
            complete = False
    return [name for name in state.names if name in names] if complete else None


def _pattern_targets(
    request: PatternRequest, state: AxisState, names: list[str], problems: Problems
) -> dict[str, int] | None:
    targets: dict[str, int] = {}
    complete = True
    for ref, size in (request.to or {}).items():
        path = (*request.path, "to", ref)
        name = state.find(ref, f"`to` of pattern `{request.pattern}` names")
        message: str | None
        hint: str | None = None
        if isinstance(name, Absent):
            message, hint = name.message, name.hint
        elif name not in names:
            message = f"axis {state.show(name)} is none of those that the pattern runs over"
        elif name in targets:
            message = f"axis {state.show(name)} is listed twice"
        else:
            targets[name] = size
            continue
        complete = False
        if message is not None:
            problems.error(path, message, hint, key=True)
    return targets if complete else None


def _drafts(
    request: PatternRequest, state: AxisState, gates: list[tuple[tuple[str, ...], Kind | None]], targets: dict[str, int]
) -> Iterator[Draft]:
    """Yield the gates; an axis shrinks at its first gate and grows at its last, so that the others are small."""
    resized: dict[int, dict[str, int]] = {}
    for name, size in targets.items():
        touching = [index for index, (axes, _) in enumerate(gates) if name in axes]
        before = state.sizes[name]
        if touching and size != before:
            index = touching[-1] if before is not None and size > before else touching[0]
            resized.setdefault(index, {})[name] = size
    sizes = dict(state.sizes)
    for index, (axes, kind) in enumerate(gates):
        to: dict[AxisRef, int] | None = None
        if index in resized:
            sizes.update(resized[index])
            # An axis of unknown size keeps the placeholder 1: an error was reported already.
            to = {name: sizes[name] or 1 for name in axes}
        yield Draft(
            request.path,
            axes,
            to,
            request.per or (),
            matrix=kind or request.matrix,
            init=request.init,
            frozen=request.frozen,
            across=request.across,
            whole=True,
        )
