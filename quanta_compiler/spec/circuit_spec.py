"""The resolved circuit file: what every later stage reads."""

import math
from dataclasses import dataclass, field

from quanta_compiler.diagnostics import Diagnostic
from quanta_compiler.kinds.kind import AxisSize, Form, Kind, Sides, sides

ACROSS = {
    "layers": "all layers of a target name",
    "targets": "all targets of a layer",
    "all": "all adapted layers",
}
"""The values of `across`: which layers of a model have one parameter, where its matrix has the same shape."""


@dataclass(frozen=True, slots=True)
class Init:
    """How a gate's parameter is drawn: a scheme of the file format, and the standard deviation where it has one."""

    scheme: str
    std: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec(Sides):
    """One gate with every default written out; axes by name, `per: rest` resolved.

    The gate's matrix has shape `[*per, rows, columns]`: columns in the order of `axes`, rows in the order of `to`.
    """

    name: str
    matrix: Kind
    """The gate's kind, with its options."""
    init: Init | None = None
    """None where there is nothing to draw: `slice`, `constant` and shared gates."""
    frozen: bool = False
    across: str | None = None
    """Which layers of a model have this parameter together, a word of `ACROSS`; None where each has its own."""
    share: str | None = None
    """The earlier gate whose parameter this one uses, as the file names it; its kind is then that gate's."""
    transpose: bool = False

    @property
    def kind(self) -> str:
        """Return the name of the gate's kind."""
        return self.matrix.name

    @property
    def form(self) -> Form:
        """Return how the gate's matrix is there."""
        return self.matrix.form

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the gate's matrix: `[*per, rows, columns]`."""
        return (*(axis.size for axis in self.per), *sides(self))

    @property
    def numbers(self) -> int:
        """Return how many numbers the gate stores, trainable or not, a shared parameter too."""
        return math.prod(self.shape[:-2]) * self.matrix.numbers(*self.shape[-2:])

    @property
    def starts_at_zero(self) -> bool:
        """Return whether the gate's matrix is zero as it is drawn; made of angles, it is orthogonal then."""
        return self.init is not None and self.init.scheme == "zeros" and not self.matrix.stores_angles


@dataclass(frozen=True, slots=True)
class CircuitSpec:
    """A validated circuit file with patterns, presets and defaults resolved.

    Two specs are equal where they describe the same circuit, wherever they were read from.
    """

    name: str
    layout: tuple[AxisSize, ...]
    positional: bool
    """True where the layout's axes are named by position (`0` to `N-1`), and are so written in files."""
    in_features: int
    out_features: int
    gates: tuple[GateSpec, ...]
    output: tuple[AxisSize, ...]
    """The final axes in the order in which they are flattened."""
    tokens: int
    optimizer: str
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False, repr=False)

    @property
    def off_identity(self) -> str | None:
        """Say what keeps the operator from beginning as the identity; None where it does, padded ones included."""
        if self.in_features != self.out_features:
            return f"it is no square circuit ({self.in_features} -> {self.out_features})"
        if math.prod(axis.size for axis in self.layout) < self.in_features:
            return f"its layout has fewer than {self.in_features} numbers, and the rest is cut off"
        named = {gate.name: gate for gate in self.gates}
        for gate in self.gates:
            source = gate
            while source.share is not None:
                source = named[source.share]
            if gate.axes != gate.to:
                return f"gate {gate.name!r} changes its axes"
            scheme = source.init.scheme if source.init else None
            if not source.matrix.starts_as_identity(*sides(source), scheme):
                return f"gate {gate.name!r} begins {_beginning(source, scheme)}"
        return None if self.output == self.layout else "its output has the axes in another order"


def _beginning(gate: GateSpec, scheme: str | None) -> str:
    if scheme in ("identity", "zeros"):
        return f"as something else (kind {gate.kind!r} with `init: {scheme}`)"
    return f"by `init: {scheme}`" if scheme else f"as what its kind {gate.kind!r} fixes"
