"""The families that are recommended, and of each the largest circuit that a number of parameters allows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.models.across import trained_again
from quanta_compiler.models.fitting import fitted_spec
from quanta_compiler.presets.family import Family
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.recommend.budget import Alike, Shape

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A family, or a part of one, and how its circuits are made."""

    name: str
    documents: Callable[[Alike, int], Iterator[Document]]
    """The circuits for layers, those of more trained numbers first; the smallest is always the last."""

    def largest(self, layers: Alike, most: int) -> Document | None:
        """Return the largest circuit that trains at most `most` numbers, and no more than dense layers."""
        bound = min(most, layers.dense_numbers)
        return next((one for one in self.documents(layers, bound) if _fits(one, layers, bound)), None)

    def smallest(self, layers: Alike) -> Document | None:
        """Return the smallest circuit, whatever it trains; None where the family has none for the layers."""
        *_, last = (None, *(one for one in self.documents(layers, 0) if _fits(one, layers, layers.dense_numbers)))
        return last


def trained_numbers(document: Mapping[str, Any], layers: Alike) -> int:
    """Return how many numbers train in a circuit on layers of a shape, those that the layers have together once.

    Presets have gates of their own for every layer, or the same for all of them.

    Raises:
        SpecError: there is no such circuit for the layers.

    """
    own, shared = own_and_shared(document, layers.shape)
    return own * layers.count + shared


def own_and_shared(document: Mapping[str, Any], shape: Shape) -> tuple[int, int]:
    """Return how many numbers train in a circuit for a layer: its own, and those that it has together with others."""
    spec = fitted_spec(document, *shape)
    shared = trained_again([("", spec)] * 2)
    return sum(stored.numbers for stored in all_stored(build_circuit(spec)) if not stored.gate.frozen) - shared, shared


def _fits(document: Document, layers: Alike, most: int) -> bool:
    try:
        return trained_numbers(document, layers) <= most
    except SpecError:
        return False


def _sized(family: type[Family], label: str, layers: Alike, most: int) -> Iterator[Document]:
    """Yield the circuits of a family that has them in several sizes."""
    found = [(trained_numbers(document, layers), document) for document in family.sized(*layers.shape)[label]]
    yield from (document for _, document in sorted(found, key=lambda one: (-one[0], one[1]["name"])))


def _grown(family: type[Family], option: str, layers: Alike, most: int) -> Iterator[Document]:
    """Yield the circuit of the largest value of an option that fits, then that of 1."""

    def document(value: int) -> Document:
        return {"version": 1, "name": _title(family, value), "preset": family.name, option: value}

    # Above this there are no more updates, only more numbers, or the circuit is none of its family.
    expansion = family().circuit(*layers.shape)
    bounds = {**expansion.largest, **{name: limit.value for name, limit in expansion.limits.items()}}
    low, high = 0, min(*layers.shape, bounds.get(option, max(layers.shape)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(document(middle), layers, most) else (low, middle - 1)
    yield from (document(value) for value in sorted({max(low, 1), 1}, reverse=True))


def _alone(family: type[Family], layers: Alike, most: int) -> Iterator[Document]:
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
