"""The families that are recommended, and of each the largest circuit that a number of parameters allows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.models.fitting import fitted_spec
from quanta_compiler.presets.family import Family
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.recommend.budget import Shape

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A family, or a part of one, and how its circuits are made."""

    name: str
    documents: Callable[[Shape, int], Iterator[Document]]
    """The circuits for a layer, those of more trained numbers first; the smallest is always the last."""

    def largest(self, shape: Shape, most: int) -> Document | None:
        """Return the largest circuit that trains at most `most` numbers, and no more than a dense layer."""
        bound = min(most, shape[0] * shape[1])
        return next((one for one in self.documents(shape, bound) if _fits(one, shape, bound)), None)

    def smallest(self, shape: Shape) -> Document | None:
        """Return the smallest circuit, whatever it trains; None where the family has none for the layer."""
        *_, last = (None, *(one for one in self.documents(shape, 0) if _fits(one, shape, shape[0] * shape[1])))
        return last


def trained_numbers(document: Mapping[str, Any], shape: Shape) -> int:
    """Return how many numbers train in a circuit for a layer.

    Raises:
        SpecError: there is no such circuit for the layer.

    """
    circuit = build_circuit(fitted_spec(document, *shape))
    return sum(stored.numbers for stored in all_stored(circuit) if not stored.gate.frozen)


def _fits(document: Document, shape: Shape, most: int) -> bool:
    try:
        return trained_numbers(document, shape) <= most
    except SpecError:
        return False


def _sized(family: type[Family], label: str, shape: Shape, most: int) -> Iterator[Document]:
    """Yield the circuits of a family that has them in several sizes."""
    found = [(trained_numbers(document, shape), document) for document in family.sized(*shape)[label]]
    yield from (document for _, document in sorted(found, key=lambda one: (-one[0], one[1]["name"])))


def _grown(family: type[Family], option: str, shape: Shape, most: int) -> Iterator[Document]:
    """Yield the circuit of the largest value of an option that fits, then that of 1."""

    def document(value: int) -> Document:
        return {"version": 1, "name": _title(family, value), "preset": family.name, option: value}

    # Above this there are no more updates, only more numbers, or the circuit is none of its family.
    expansion = family().circuit(*shape)
    bounds = {**expansion.largest, **{name: limit.value for name, limit in expansion.limits.items()}}
    low, high = 0, min(*shape, bounds.get(option, max(shape)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(document(middle), shape, most) else (low, middle - 1)
    yield from (document(value) for value in sorted({max(low, 1), 1}, reverse=True))


def _alone(family: type[Family], shape: Shape, most: int) -> Iterator[Document]:
    yield {"version": 1, "name": _title(family), "preset": family.name}


def _title(family: type[Family], *numbers: int) -> str:
    return "-".join([family.name.replace("_", "-"), *map(str, numbers)])


def _candidates(family: type[Family]) -> Iterator[Candidate]:
    labels = family.sized(_ANY_WIDTH, _ANY_WIDTH)
    if family.grows is not None:
        yield Candidate(family.name, partial(_grown, family, family.grows))
    elif labels:
        for label in labels:
            yield Candidate(f"{family.name}, {label}" if label else family.name, partial(_sized, family, label))
    else:
        yield Candidate(family.name, partial(_alone, family))


_ANY_WIDTH = 64
CANDIDATES = tuple(
    candidate for family in PRESETS.values() if family.placement == "parallel" for candidate in _candidates(family)
)
"""In the order of the documentation, of families that sit beside a layer; before it, circuits are square."""
