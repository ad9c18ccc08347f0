"""The axes of the state while the gates of a file are gone through."""

from collections.abc import Iterable
from dataclasses import dataclass

from quanta_compiler.diagnostics import DataPath, Problems, clip, meant, quote
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.spec.names import POSITION
from quanta_compiler.spec.values import AxisRef


@dataclass(frozen=True, slots=True)
class Absent:
    """Why an axis cannot be used; `message` is None where an earlier error may be the reason."""

    message: str | None = None
    hint: str | None = None


def position_of(ref: AxisRef) -> int | None:
    """Return the position that a reference gives, or None for a name."""
    if isinstance(ref, int):
        return ref
    return int(ref) if POSITION.match(ref) else None


class AxisState:
    """Which axes there are, in order, how large they are, and what became of those that are gone.

    A size is None where an earlier error leaves it unknown.
    """

    def __init__(self, names: tuple[str, ...], sizes: tuple[int, ...], positional: bool) -> None:
        self.names = names
        self.layout = tuple(AxisSize(name, size) for name, size in zip(names, sizes, strict=True))
        """The axes as they began."""
        self.positional = positional
        self.sizes: dict[str, int | None] = dict(zip(names, sizes, strict=True))
        self.known = True
        """False once there may be axes that are not in `sizes`."""
        self.doubtful: set[str] = set()
        """Axes that an earlier error leaves in place, though the gate may be meant to remove them."""
        self.layout_text = layout_text(names, sizes, positional)
        self._original_removed_by: dict[str, str] = {}
        self._removed_by: dict[str, str] = {}
        self._created_by: dict[str, str] = {}

    def original(self, name: str) -> bool:
        """Say whether `name` is still the axis of the input layout."""
        return name in self.names and name not in self._original_removed_by

    def show(self, name: str) -> str:
        """Return an axis as a message names it."""
        return name if name.lstrip("-").isdigit() else f"'{clip(name)}'"

    def product(self, names: Iterable[str]) -> int | None:
        """Return the product of the sizes of some axes, or None where one is unknown."""
        product = 1
        for name in names:
            size = self.sizes.get(name)
            if size is None:
                return None
            product *= size
        return product

    def find(self, ref: AxisRef, user: str) -> str | Absent:
        """Return the canonical name of a present axis; `user` is who asks, as in `gate 'g3' acts on`."""
        position = position_of(ref)
        if position is None:
            assert isinstance(ref, str)
            return ref if ref in self.sizes else self._absent_name(ref, user)
        count = len(self.names)
        if not -count <= position < count:
            if not self.known and not count:
                return Absent()
            axes = f"axes 0 to {count - 1}" if count > 1 else "one axis, 0"
            return Absent(f"{user} axis {quote(ref)}, but the layout has {axes} ({self.layout_text})")
        name = self.names[position]
        removed = self._original_removed_by.get(name)
        if removed is None:
            return name
        again = " (an axis created since must be named)" if name in self.sizes else ""
        return Absent(f"{user} axis {quote(ref)}, which {removed} removed{again}", self._present_hint())

    def _absent_name(self, ref: str, user: str) -> Absent:
        removed = self._removed_by.get(ref)
        if removed is not None:
            return Absent(f"{user} axis {quote(ref)}, which {removed} removed", self._present_hint())
        if not self.known:
            return Absent()
        hint = meant(ref, (name for name in self.sizes if not name.isdigit()), self._present_hint())
        return Absent(f"{user} axis {quote(ref)}, which does not exist here", hint)

    def _present_hint(self) -> str:
        names = list(self.sizes)
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        return f"the axes here are {shown}" if names else "no axis is left here"

    def forget_sizes(self) -> None:
        """Leave all sizes open, after a gate that may have changed any of them."""
        self.sizes = dict.fromkeys(self.sizes)

    def creator(self, name: str) -> str | None:
        """Return which gate created an axis that is no axis of the input layout."""
        return self._created_by.get(name)

    def apply_roughly(self, axes: Iterable[str], to: dict[str, int | None]) -> None:
        """Apply a gate that is wrong in itself: what it may remove stays usable, so that nothing follows from that."""
        for name in axes:
            self.sizes[name] = to.get(name)
            self.doubtful.add(name)
        for name, size in to.items():
            self.sizes.setdefault(name, size)

    def apply(self, axes: Iterable[str], to: dict[str, int | None], gate: str) -> None:
        """Replace `axes` by `to`: survivors keep their place, new axes come last."""
        for name in axes:
            if name not in to:
                self.sizes.pop(name, None)
                self._removed_by[name] = gate
                if self.original(name):
                    self._original_removed_by[name] = gate
        for name, size in to.items():
            if name not in self.sizes:
                self._created_by[name] = gate
            self.sizes[name] = size


def layout_text(names: Iterable[str], sizes: Iterable[int | None], positional: bool) -> str:
    """Write axes as a message shows them: `16x8x8x4`, with names where they have some."""
    shown = ["?" if size is None else str(size) for size in sizes]
    if not positional:
        shown = [f"{clip(name, 20)}={size}" for name, size in zip(names, shown, strict=True)]
    text = ("x" if positional else " ").join(shown)
    return text if len(text) <= 80 else text[:80] + "…"


def find_all(
    state: AxisState, refs: Iterable[AxisRef], user: str, path: DataPath, problems: Problems
) -> tuple[list[str], bool]:
    """Find the axes that a list names; return those found, and whether that was all of them, each once."""
    found: list[str] = []
    complete = True
    for index, ref in enumerate(refs):
        name = state.find(ref, user)
        if isinstance(name, Absent):
            complete = False
            if name.message is not None:
                problems.error((*path, index), name.message, name.hint)
        elif name in found:
            complete = False
            problems.error((*path, index), f"axis {state.show(name)} is listed twice", "list each axis once")
        else:
            found.append(name)
    return found, complete
