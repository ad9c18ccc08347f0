"""One gate after the other: its axes, its matrix, its name, and the parameter that it may share."""

import re
from dataclasses import dataclass, replace

from quanta_compiler.diagnostics import DataPath, Problems, meant, quote
from quanta_compiler.kinds import DEFAULT, limits
from quanta_compiler.kinds.initialisers import INITIALISERS
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.kinds.plugins import PluginError, checked
from quanta_compiler.spec.axes import Absent, AxisState, find_all, position_of
from quanta_compiler.spec.circuit_spec import GateSpec, Init
from quanta_compiler.spec.document import BrokenItem
from quanta_compiler.spec.drafts import Draft
from quanta_compiler.spec.names import axis_name_problem

_DEFAULT_NAME = re.compile(r"g(0|[1-9][0-9]*)\Z")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A gate as far as it could be resolved."""

    draft: Draft | None
    name: str
    spec: GateSpec | None


_Axes = tuple[AxisSize, ...]
_Shape = tuple[_Axes, _Axes, _Axes]
"""The axes of a gate, what they become, and those that select its matrix."""


class GateResolver:
    """Resolves gates in the order of the file and keeps the axis state up to date."""

    def __init__(self, state: AxisState, default_init: Init, problems: Problems) -> None:
        self.state = state
        self.default_init = default_init
        self.problems = problems
        self.entries: list[_Entry] = []
        self.by_name: dict[str, _Entry] = {}
        self.defaults_known = True
        """False once an error leaves open how many gates there are, and so what default names they have."""
        # A layout that is itself too wide is reported as such.
        self.width_reported = (state.product(state.sizes) or 0) > limits.WIDTH
        self.numbers = 0
        self.numbers_reported = False
        self.told: set[tuple[DataPath, int | None]] = set()
        self.shares_to_find: list[tuple[Draft, str, str]] = []

    def skip(self, item: BrokenItem) -> None:
        """Pass over an entry that could not be read."""
        if item.is_pattern:
            self.skip_pattern(item.has_effect)
            return
        entry = _Entry(None, item.name or f"g{len(self.entries)}", None)
        self.entries.append(entry)
        self.by_name.setdefault(entry.name, entry)
        if item.has_effect:
            self.state.known = False
            self.state.forget_sizes()

    def skip_pattern(self, has_effect: bool) -> None:
        """Pass over a pattern that could not be written out."""
        self.defaults_known = False
        if has_effect:
            self.state.forget_sizes()

    def add(self, draft: Draft, *, judge: bool) -> None:
        """Resolve one gate; its problems are reported, its effect on the axes is applied as far as it is known.

        Without `judge` only its axes and its name are looked at: the rest could not be read.
        """
        name = draft.name if draft.name is not None else f"g{len(self.entries)}"
        is_named = draft.name is not None or self.defaults_known
        label = f"gate {quote(name)}" if is_named else "the gate"
        shape = self._shape(draft, label)
        owner = self._owner(draft, name, label)
        spec: GateSpec | None = None
        if judge and shape is not None and (draft.share is None or owner is not None):
            spec = self._spec(draft, name, label, shape, owner)
        self.entries.append(_Entry(draft, name, spec))
        if is_named:
            self._register(draft, name, self.entries[-1])
        self._check_width(draft, label)

    def _register(self, draft: Draft, name: str, entry: _Entry) -> None:
        other = self.by_name.setdefault(name, entry)
        if other is entry:
            return
        # One of the two was given: default names alone never clash.
        given = draft if draft.name is not None else other.draft
        if draft.name is not None and other.draft is not None and other.draft.name is not None:
            self.problems.error(draft.at("name"), f"two gates are called {quote(name)}", "give each a name of its own")
        elif given is not None:
            message = f"the name {quote(name)} is the default name of another gate"
            self.problems.error(given.at("name"), message, f"rename it, or name the gate at position {name[1:]} too")

    # Axes

    def _shape(self, draft: Draft, label: str) -> _Shape | None:
        """Look the axes up and apply the gate's effect; None where one of `axes`, `to` and `per` is not known."""
        state = self.state
        names, complete = find_all(state, draft.axes, f"{label} acts on", draft.at("axes"), self.problems)
        axes = [(name, state.sizes[name]) for name in names]
        per = self._per(draft, label, names)
        to = self._to(draft, label, axes, complete, per or [])
        if to is not None and draft.to is not None:
            if complete:
                state.apply(names, dict(to), label)
            else:
                state.apply_roughly(names, dict(to))
        groups = axes, to or [], per or []
        if not complete or per is None or to is None or any(size is None for group in groups for _, size in group):
            return None
        known = [tuple(AxisSize(name, size) for name, size in group if size is not None) for group in groups]
        return known[0], known[1], known[2]

    def _per(self, draft: Draft, label: str, axes: list[str]) -> list[tuple[str, int | None]] | None:
        state = self.state
        if draft.per == "rest":
            return [(name, size) for name, size in state.sizes.items() if name not in axes]
        assert not isinstance(draft.per, str)
        path = draft.at("per")
        names, complete = find_all(state, draft.per, f"`per` of {label} names", path, self.problems)
        for index, name in enumerate(names):
            if name in axes:
                message = f"axis {state.show(name)} is in `axes` and in `per` of {label}"
                hint = "a gate either contracts an axis or has a matrix for each index of it"
                self.problems.error(draft.at("per", index) if complete else path, message, hint)
                return None
        return [(name, state.sizes[name]) for name in names] if complete else None

    def _to(
        self,
        draft: Draft,
        label: str,
        axes: list[tuple[str, int | None]],
        complete: bool,
        per: list[tuple[str, int | None]],
    ) -> list[tuple[str, int | None]] | None:
        if draft.to is None:
            return axes
        if isinstance(draft.to, tuple):
            if len(draft.to) == len(draft.axes):
                return [(name, size) for (name, _), size in zip(axes, draft.to, strict=False)] if complete else None
            message = f"`to` of {label} has length {len(draft.to)}, but the gate acts on {len(draft.axes)} axes"
            self.problems.error(
                draft.at("to"), message, "give one size per axis, or a mapping to create and remove axes"
            )
            self.state.apply((), {name: None for name, _ in axes}, label)
            return None
        own = [name for name, _ in axes]
        to: dict[str, int | None] = {}
        right = True
        for ref, size in draft.to.items():
            name = self._target(draft, label, ref, own, complete)
            if isinstance(name, Absent):
                right = False
                if name.message is not None:
                    self.problems.error(draft.at("to", ref), name.message, name.hint, key=True)
            elif name in to:
                right = False
                self.problems.error(
                    draft.at("to", ref), f"axis {self.state.show(name)} is listed twice in `to`", key=True
                )
            else:
                to[name] = size
        if right:
            return list(to.items())
        self.state.apply_roughly(own, to)
        return None

    def _target(self, draft: Draft, label: str, ref: int | str, own: list[str], complete: bool) -> str | Absent:
        """Return the axis that a key of `to` means: one of the gate's own, or a new one."""
        state = self.state
        if position_of(ref) is not None:
            name = state.find(ref, f"`to` of {label} names")
            if isinstance(name, Absent):
                hint = "a new axis needs a name; a position is an axis of the input layout"
                return replace(name, hint=hint) if name.message is not None and name.hint is not None else name
            if name in own or not complete:
                return name
            return Absent(f"`to` of {label} names axis {ref}, which is none of its `axes`", "add it to `axes`")
        assert isinstance(ref, str)
        if ref in own:
            return ref
        if ref in state.sizes:
            if not complete or not state.known or ref in state.doubtful:
                return Absent()
            hint = "choose another name for the new axis, or add the axis to `axes`"
            return Absent(
                f"`to` of {label} names axis {quote(ref)}, which is none of its `axes` and exists already", hint
            )
        problem = axis_name_problem(ref)
        if problem is not None:
            return Absent(f"an axis cannot be called {quote(ref)}: the name {problem}", "choose another name")
        return ref

    def _check_width(self, draft: Draft, label: str) -> None:
        product = self.state.product(self.state.sizes)
        if product is None or product <= limits.WIDTH or self.width_reported:
            return
        self.width_reported = True
        message = f"after {label} the state has {product} numbers; the limit is {limits.WIDTH}"
        self.problems.error(draft.at("to"), message)

    # Parameters

    def _owner(self, draft: Draft, name: str, label: str) -> GateSpec | None:
        if draft.share is None:
            return None
        entry = self.by_name.get(draft.share)
        if entry is None or draft.share == name:
            self.shares_to_find.append((draft, name, label))
            return None
        owner = entry.spec
        if owner is not None and not owner.matrix.trains:
            message = f"{label} shares the parameter of {quote(draft.share)}, a {owner.kind} gate, which has none"
            self.problems.error(draft.at("share"), message, f"write the {owner.kind} gate again")
            return None
        return owner

    def _spec(self, draft: Draft, name: str, label: str, shape: _Shape, owner: GateSpec | None) -> GateSpec | None:
        axes, to, per = shape
        spec = GateSpec(
            name=name,
            matrix=draft.matrix if owner is None else owner.matrix,
            axes=axes,
            to=to,
            per=per,
            init=None if owner is not None else self._init(draft),
            frozen=draft.frozen and draft.matrix.trains,
            across=draft.across if draft.matrix.trains else None,
            share=draft.share,
            transpose=draft.transpose,
        )
        may_resize = spec.matrix.may_resize or (owner is not None and not spec.matrix.is_diagonal)
        if not may_resize and spec.to != spec.axes:
            message = f"{label} is {spec.kind} and cannot change its axes"
            self.problems.error(draft.at("to"), message, f"leave `to` out, or use `kind: {DEFAULT.name}`")
            return None
        if owner is not None:
            # What is wrong with its matrix is said of the gate that has the parameter: here the shape counts.
            return spec if self._check_share(draft, label, spec, owner) else None
        try:
            complaints = checked(spec.matrix, spec, label)
        except PluginError as error:
            self.problems.error(draft.at("kind"), error.fact, error.hint)
            return None
        wrong = next((complaint for complaint in complaints if not complaint.is_warning), None)
        if wrong is not None:
            self.problems.error(draft.at(*wrong.at), wrong.message, wrong.hint)
            return None
        self._count_numbers(draft, label, spec)
        for complaint in complaints:
            key = draft.path, complaint.once
            if complaint.once is None or key not in self.told:
                self.told.add(key)
                self.problems.warning(draft.at(*complaint.at), complaint.message, complaint.hint)
        return spec

    def _init(self, draft: Draft) -> Init | None:
        schemes = draft.matrix.schemes
        if not schemes:
            return None
        if draft.init is not None:
            return draft.init
        # The circuit's scheme may be one for the entries of matrices.
        if self.default_init.scheme in schemes:
            return self.default_init
        return Init(schemes[0], INITIALISERS[schemes[0]].std)

    def _check_share(self, draft: Draft, label: str, spec: GateSpec, owner: GateSpec) -> bool:
        shape, other = spec.shape, owner.shape
        swapped = (*other[:-2], other[-1], other[-2])
        wanted = swapped if spec.transpose else other
        if shape == wanted:
            return True
        of = ("the transpose of " if spec.transpose else "") + quote(owner.name)
        message = f"{label} needs a matrix of shape {list(shape)}, but {of} has {list(wanted)}"
        is_swapped = not spec.transpose and shape == swapped
        hint = "add `transpose: true`" if is_swapped else "shapes are [*per, rows, columns]"
        self.problems.error(draft.at("share"), message, hint)
        return False

    def _count_numbers(self, draft: Draft, label: str, spec: GateSpec) -> None:
        numbers = spec.numbers
        if numbers > limits.GATE_NUMBERS:
            message = f"the matrix of {label} has {numbers} numbers; the limit is {limits.GATE_NUMBERS}"
            hint = f"act on fewer axes, or use `kind: {spec.matrix.smaller}`"
            self.problems.error(draft.at("axes"), message, hint)
            return
        self.numbers += numbers
        if self.numbers > limits.PARAMETERS and not self.numbers_reported:
            self.numbers_reported = True
            message = f"with {label} the circuit has {self.numbers} parameters; the limit is {limits.PARAMETERS}"
            self.problems.error(draft.at("axes"), message)

    def finish(self) -> tuple[GateSpec, ...] | None:
        """Report what only the whole list shows; return the gates, or None where one is incomplete."""
        positions = {entry.name: index for index, entry in enumerate(self.entries)}
        for draft, name, label in self.shares_to_find:
            share = draft.share or ""
            if not self.defaults_known and _DEFAULT_NAME.match(share):
                continue
            earlier = [other for other in positions if positions[other] < positions[name]]
            if share == name:
                message, hint = f"{label} shares its own parameter", "name an earlier gate"
            elif share in positions:
                message = f"{label} shares the parameter of {quote(share)}, which comes later"
                hint = "give the parameter to the earlier gate, and the `share` to the later one"
            else:
                message = f"{label} shares the parameter of {quote(share)}, but there is no such gate"
                hint = meant(share, earlier, "name an earlier gate; unnamed ones are g0, g1, … by position")
            self.problems.error(draft.at("share"), message, hint)
        specs = [entry.spec for entry in self.entries if entry.spec is not None]
        return tuple(specs) if len(specs) == len(self.entries) else None
