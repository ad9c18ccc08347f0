"""What a family of circuits is: the record of its options, which knows the circuit that they stand for.

Everywhere here n is in_features and m is out_features; n_k and m_k are their factors, axis by axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from quanta_compiler.kinds.limits import WIDTH
from quanta_compiler.kinds.options import Integer, Key, Sizes, keys_of, option

FACTORS = {"key": Key(Sizes(), "The factors of in_features, one for each axis, or how many of them to choose.")}
"""The metadata of a field that is a layout, which the compiler chooses unless the file does."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest value of an option, and what that is."""

    value: int
    reason: str


@dataclass(frozen=True, slots=True)
class Expansion:
    """The circuit that a preset stands for."""

    circuit: dict[str, Any]
    """`layout`, `gates` and, where they are not the defaults, `init` and `output`, as a file writes them."""
    largest: dict[str, int] = field(default_factory=dict)
    """For some options the value past which the circuit has no more updates, only more parameters."""
    connecting: dict[str, int] = field(default_factory=dict)
    """For some options the value from which on every output can depend on every input."""
    chosen_width: int | None = None
    """The width of a square circuit that the compiler chose; None where both widths are served by themselves."""
    limits: dict[str, Limit] = field(default_factory=dict)
    """For some options the largest value with which the circuit is one of the family."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of circuits; an instance has the options that a file gives."""

    name: ClassVar[str]
    meaning: ClassVar[str]
    """One sentence without its point."""
    operator: ClassVar[str]
    """The operator T: [m, n] as a formula."""
    parameters: ClassVar[str]
    """The number of trained parameters as a formula."""
    main: ClassVar[str | None] = None
    """The option that the short notation `NAME:VALUE` sets."""
    grows: ClassVar[str | None] = None
    """The option with which the number of trained parameters grows, where a single number does it."""
    widths: ClassVar[str | None] = None
    """What a width is that the circuit is not padded for, where the family has no layout."""
    placement: ClassVar[str] = "parallel"
    """Where the family's paper puts the circuit: beside the layer, or before it, `input`."""
    theirs: ClassVar[Mapping[str, str]] = {}
    """Arguments of PEFT's own method of this name: what to write here in their place."""

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return the circuit for a layer of these widths."""
        raise NotImplementedError

    @classmethod
    def sized(cls, in_features: int, out_features: int) -> dict[str, list[dict[str, Any]]]:
        """Return circuits of several sizes for a layer, by what tells them apart, as a file writes them.

        Only where `grows` is None; without any, the family has the circuit of its defaults alone.
        """
        return {}

    options = classmethod(keys_of)
    """The options that the family takes, in the order of the documentation."""


def number(meaning: str, default: int) -> Any:
    """Return the field of an option that is a size."""
    return option(Key(Integer(1, WIDTH), meaning), default)
