"""The families that are recommended, and of each the largest circuit that a number of parameters allows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.models.fitting import fitted_spec
from quanta_compiler.presets.layouts import auto_layout
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.recommend.budget import Shape
from quanta_compiler.search.space import factorizations

Document = dict[str, Any]
_LOPSIDED = 4
"""A layout whose largest axis is more than this many times its smallest has most of its numbers in one gate."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A family, and how its circuits are made."""

    name: str
    documents: Callable[[Shape, int], Iterable[Document]]
    """The circuits for a layer, those of more trained numbers first; the smallest is always the last."""

    def largest(self, shape: Shape, most: int) -> Document | None:
        """Return the largest circuit that trains at most `most` numbers; None where there is none."""
        return next((one for one in self.documents(shape, most) if _fits(one, shape, most)), None)

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


def _by_layout(axes: int, shape: Shape, most: int, **gate: Any) -> Iterator[Document]:
    """Yield QuanTA's circuits of some axes, on even layouts and on that of `{auto: N}`.

    Where an axis can make the difference between the two widths its gates are rectangular; otherwise the circuit is as
    wide as the larger one.
    """
    resized = [_resized(sizes, shape) for sizes in _even(shape[0], axes)] if shape[0] != shape[1] else []
    layouts = [(sizes, to) for sizes, to in resized if to]
    if not layouts:
        width = max(shape)
        layouts = [(sizes, {}) for sizes in {*_even(width, axes), auto_layout(width, axes)}]
    found = []
    for sizes, to in layouts:
        options = {**gate, **({"to": to} if to else {})}
        document = {
            "version": 1,
            "name": "-".join(["quanta", *gate.values(), *map(str, sizes), *(f"to-{size}" for size in to.values())]),
            "layout": "x".join(map(str, sizes)),
            "gates": [{"pattern": "all_pairs", **options} if options else "all_pairs"],
            # Keeps the scale, however many gates there are; orthogonal gates do so by themselves.
            **({} if gate else {"init": "orthogonal"}),
        }
        found.append((trained_numbers(document, shape), document))
    yield from (document for _, document in sorted(found, key=lambda one: (-one[0], one[1]["name"])))


def _even(width: int, axes: int) -> list[tuple[int, ...]]:
    return [sizes for sizes in factorizations(width, axes) if sizes[0] <= _LOPSIDED * sizes[-1]]


def _resized(sizes: tuple[int, ...], shape: Shape) -> tuple[tuple[int, ...], dict[int, int]]:
    """Return sizes with the first axis that can make the output's width of the input's, and what it becomes."""
    for axis, size in enumerate(sizes):
        new, rest = divmod(size * shape[1], shape[0])
        if not rest and new >= 2:
            return sizes, {axis: new}
    return sizes, {}


def _krona(shape: Shape, most: int) -> Iterator[Document]:
    """Yield Kronecker products of two matrices, those of even layouts."""
    for sizes in sorted(_even(shape[0], 2), reverse=True):
        name = f"krona-{sizes[0]}-{sizes[1]}"
        yield {"version": 1, "name": name, "preset": "krona", "layout": "x".join(map(str, sizes))}


def _by_number(preset: str, option: str, shape: Shape, most: int, **others: Any) -> Iterator[Document]:
    """Yield the circuit of the largest value of an option that fits: the numbers grow with it."""

    def document(value: int) -> Document:
        name = "-".join([preset.replace("_", "-"), *(str(other) for other in others.values()), str(value)])
        return {"version": 1, "name": name, "preset": preset, **others, option: value}

    # Above this there are no more updates, only more numbers, or the circuit is none of its family.
    expansion = PRESETS[preset](**others).circuit(*shape)
    bounds = {**expansion.largest, **expansion.limits}
    low, high = 0, min(*shape, bounds.get(option, max(shape)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(document(middle), shape, most) else (low, middle - 1)
    yield from (document(value) for value in sorted({max(low, 1), 1}, reverse=True))


def _alone(preset: str, shape: Shape, most: int) -> Iterator[Document]:
    yield {"version": 1, "name": preset.replace("_", "-"), "preset": preset}


CANDIDATES = (
    Candidate("lora", partial(_by_number, "lora", "rank")),
    *(Candidate(f"quanta, {axes} axes", partial(_by_layout, axes)) for axes in (3, 4, 5)),
    Candidate("quanta, orthogonal", partial(_by_layout, 4, kind="orthogonal")),
    Candidate("krona", _krona),
    Candidate("tt", partial(_by_number, "tt", "rank")),
    Candidate("loretta", partial(_by_number, "loretta", "tt_rank")),
    Candidate("monarch", partial(_by_number, "monarch", "block_rank", blocks=4)),
    Candidate("btt", partial(_by_number, "btt", "rank")),
    Candidate("butterfly", partial(_alone, "butterfly")),
    Candidate("quantum_peft", partial(_by_number, "quantum_peft", "rank")),
)
"""In the order of the documentation, LoRA first: it is what the others are compared with."""
