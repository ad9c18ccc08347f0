"""The resolved circuit file: what every later stage reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from quanta_compiler.diagnostics import Diagnostic
from quanta_compiler.spec.rotations import ROTATION_KINDS


@dataclass(frozen=True, slots=True)
class AxisSize:
    """An axis by name and its number of indices."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Init:
    """How a gate's parameter is drawn: a scheme of the file format, and the standard deviation where it has one."""

    scheme: str
    std: float | None = None


@dataclass(frozen=True, slots=True)
class GateSpec:
    """One gate with every default written out; axes by name, `per: rest` resolved.

    The gate's matrix has shape `[*per, rows, columns]`: columns in the order of `axes`, rows in the order of `to`.
    """

    name: str
    kind: str
    axes: tuple[AxisSize, ...]
    """The contracted axes with their sizes before the gate."""
    to: tuple[AxisSize, ...]
    """What stands in their place afterwards; equal to `axes` where the file does not say otherwise."""
    per: tuple[AxisSize, ...] = ()
    init: Init | None = None
    """None where there is nothing to draw: `slice`, `constant` and shared gates."""
    frozen: bool = False
    rank: int | None = None
    share: str | None = None
    """The earlier gate whose parameter this one uses, as the file names it; kind and the rest are then that gate's."""
    transpose: bool = False
    value: tuple[tuple[float, ...], ...] | None = None
    map: str | None = None
    """How an `orthogonal` gate makes a matrix of its Lie algebra: `exp` or `cayley`."""
    layers: int | None = None
    """The entangling layers of a `pauli` gate."""
    rank_parameters: int | None = None
    """K': how many columns of its Lie parameters an `orthogonal` gate trains, or a `pauli` gate of each column."""

    @property
    def starts_at_zero(self) -> bool:
        """Return whether the gate's matrix is zero as it is drawn; at zero a rotation's matrix is orthogonal."""
        return self.init is not None and self.init.scheme == "zeros" and self.kind not in ROTATION_KINDS


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
