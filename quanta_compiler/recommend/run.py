"""What is recommended for a model: the largest circuits of each family under a budget, in order, with their costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from quanta_compiler.compare.figures import Conditions, circuit_row, summed
from quanta_compiler.compare.row import Row
from quanta_compiler.driver import compile_circuit
from quanta_compiler.models.across import obstacle, trained_again
from quanta_compiler.models.fitting import fitted_spec
from quanta_compiler.models.layers import ModelLayers, TargetLayer
from quanta_compiler.presets import REFERENCE
from quanta_compiler.presets.starting import STARTING_POINTS, StartingPoint
from quanta_compiler.recommend.budget import Alike, Budget, Shape, shares
from quanta_compiler.recommend.candidates import CANDIDATES, Candidate, Document, trained_numbers
from quanta_compiler.recommend.configuration import Group, configuration, groups_of
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.short_notation import preset_document

SLOWER = 10
"""How many times as long as LoRA r=8 a step of the first choice may take, unless another number is asked for."""


@dataclass(frozen=True, slots=True)
class Recommended:
    """A family on a model: a circuit for each shape, and what they cost together."""

    family: str
    circuits: Mapping[Shape, Document]
    row: Row
    ranks: Mapping[Shape, int]
    """The highest rank that the update of a layer can have."""

    @property
    def rank_share(self) -> float:
        """Return the highest rank of an update as a share of the layer's, for the shape where it is the least."""
        return min(rank / min(shape) for shape, rank in self.ranks.items())

    @property
    def starting(self) -> StartingPoint | None:
        """Return the numbers to begin the training with, where some were measured."""
        return STARTING_POINTS.get(self.family)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Families under a budget, the first one first."""

    model: ModelLayers
    budget: Budget
    numbers: int
    tokens: int
    device: str
    origin: str
    """Of the calibration: `measured`, `typical` or `computed`."""
    reference: Row
    """LoRA r=8 on the same layers, whatever the budget."""
    choices: tuple[Recommended, ...]
    left_out: Mapping[str, str]
    """Families that have no circuit under the budget, each with the reason."""
    slower: float
    """How many times as long as the reference a step of the first choice may take."""

    @property
    def rule(self) -> str:
        """Return why the first choice is the first."""
        first = self.choices[0]
        reach = "whose outputs all depend on every input, " if first.row.connected else ""
        times = self.slower_than_lora(first)
        if times is not None and times > self.slower:
            return f"of the circuits {reach}with the highest rank, the quickest: none of them keeps to --slower"
        return (
            f"of the circuits {reach}with the highest rank and a step at most {self.slower:g} times as long as that of "
            "LoRA r=8, the one that trains the most numbers"
        )

    @property
    def groups(self) -> tuple[Group, ...]:
        """Return the targets of one shape."""
        return groups_of(self.model)

    def choice(self, family: str) -> Recommended | None:
        """Return the choice of a name."""
        return next((one for one in self.choices if one.family == family), None)

    def slower_than_lora(self, choice: Recommended) -> float | None:
        """Return the time of a step as a multiple of that of LoRA r=8, where both are predicted."""
        seconds, reference = choice.row.step_seconds, self.reference.step_seconds
        return seconds / reference if seconds and reference else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as data that JSON can hold."""
        return {
            "model": {"name": self.model.name, "parameters": self.model.parameters},
            "budget": {"text": self.budget.text, "parameters": self.numbers},
            "tokens": self.tokens,
            "device": {"name": self.device, "origin": self.origin, "calibrated": self.origin == "measured"},
            "targets": [asdict(group) for group in self.groups],
            "rule": self.rule,
            "reference": asdict(self.reference),
            "choices": [
                {
                    **asdict(one.row),
                    "circuits": [
                        {"in_features": shape[0], "out_features": shape[1], "circuit": document}
                        for shape, document in one.circuits.items()
                    ],
                    "starting_point": None if one.starting is None else asdict(one.starting),
                    "configuration": configuration(self.groups, one.circuits, one.starting),
                }
                for one in self.choices
            ],
            "left_out": dict(self.left_out),
        }


def recommend(
    model: ModelLayers,
    budget: Budget,
    conditions: Conditions,
    slower: float = SLOWER,
    progress: Callable[[str], None] = lambda _: None,
) -> Recommendation:
    """Return the largest circuits of every candidate that train at most `budget` numbers in the whole model.

    The numbers are dealt out to the layers in proportion to their widths, as LoRA's are; then what is left over.
    """
    numbers = budget.numbers(model)
    shapes = model.shapes()
    choices, left_out = [], {}
    for candidate in CANDIDATES:
        progress(candidate.name)
        circuits = _circuits(candidate, shapes, numbers)
        reason = circuits if isinstance(circuits, str) else obstacle(_fitted(circuits, model))
        if isinstance(circuits, str) or reason:
            left_out[candidate.name] = reason
        else:
            choices.append(_choice(candidate.name, circuits, model, conditions))
    progress("LoRA r=8")
    # Whatever the budget, so that times of any two budgets can be compared.
    reference = _choice("LoRA r=8", dict.fromkeys(shapes, preset_document(REFERENCE)), model, conditions)
    calibration = conditions.calibration
    return Recommendation(
        model=model,
        budget=budget,
        numbers=numbers,
        tokens=conditions.tokens,
        device=calibration.name,
        origin=calibration.origin,
        reference=reference.row,
        choices=_ordered(choices, slower * _seconds(reference)),
        slower=slower,
        left_out=left_out,
    )


def _circuits(candidate: Candidate, layers: Sequence[Shape], numbers: int) -> dict[Shape, Document] | str:
    """Return a circuit for every shape, together at most `numbers`; or why there are none.

    A shape whose share is less than the smallest circuit gets that one; the others share what is left. What rounding
    down leaves over goes to the shapes that larger circuits fit.
    """
    fixed: dict[Shape, Document] = {}
    alike = _alike(layers)
    while True:
        spent = sum(trained_numbers(document, alike[shape]) for shape, document in fixed.items())
        if spent > numbers:
            return f"the smallest train {_sum_of_smallest(candidate, layers):,} numbers"
        found = {
            shape: candidate.largest(alike[shape], share * alike[shape].count)
            for shape, share in shares([shape for shape in layers if shape not in fixed], numbers - spent).items()
        }
        missing = [shape for shape, document in found.items() if document is None]
        if not missing:
            whole = {**fixed, **{shape: one for shape, one in found.items() if one is not None}}
            return _filled(candidate, {shape: whole[shape] for shape in dict.fromkeys(layers)}, layers, numbers)
        for shape in missing:
            smallest = candidate.smallest(alike[shape])
            if smallest is None:
                return f"none is smaller than a dense layer of {shape[0]} -> {shape[1]} features"
            fixed[shape] = smallest


def _filled(
    candidate: Candidate, circuits: Mapping[Shape, Document], layers: Sequence[Shape], numbers: int
) -> dict[Shape, Document]:
    """Return the circuits with larger ones where these fit as well, those first that train the least for their widths.

    None gets over twice its share: what is left is not to make a single layer many times as large as the others. One
    round is enough: what is left only becomes less, so that what did not fit does not fit later.
    """
    filled, alike, share = dict(circuits), _alike(layers), shares(layers, numbers)
    trained = {shape: trained_numbers(document, alike[shape]) for shape, document in circuits.items()}
    left = numbers - sum(trained.values())
    for shape in sorted(circuits, key=lambda shape: trained[shape] / (alike[shape].count * sum(shape))):
        larger = candidate.largest(alike[shape], min(trained[shape] + left, 2 * share[shape] * alike[shape].count))
        more = 0 if larger is None else trained_numbers(larger, alike[shape]) - trained[shape]
        if larger is not None and more > 0:
            filled[shape] = larger
            left -= more
    return filled


def _alike(layers: Sequence[Shape]) -> dict[Shape, Alike]:
    return {shape: Alike(shape, count) for shape, count in Counter(layers).items()}


def _sum_of_smallest(candidate: Candidate, layers: Sequence[Shape]) -> int:
    smallest = ((candidate.smallest(alike), alike) for alike in _alike(layers).values())
    return sum(trained_numbers(one, alike) for one, alike in smallest if one is not None)


def _ordered(choices: Sequence[Recommended], most_seconds: float) -> tuple[Recommended, ...]:
    """Return the first choice, by the recommendation's rule, then the others: by rank, then by time."""
    ordered = sorted(choices, key=lambda one: (not one.row.connected, -one.rank_share, _seconds(one)))
    equals = [one for one in ordered if _standing(one) == _standing(ordered[0])]
    quick = [one for one in equals if _seconds(one) <= most_seconds] or equals[:1]
    first = max(quick, key=lambda one: one.row.trainable, default=None)
    return tuple(sorted(ordered, key=lambda one: one is not first))


def _standing(choice: Recommended) -> tuple[bool | None, float]:
    return choice.row.connected, choice.rank_share


def _seconds(choice: Recommended) -> float:
    """Return the predicted time of a step; where the kernel was not measured, FLOPs stand for it."""
    row = choice.row
    return row.step_flops_per_token if row.step_seconds is None else row.step_seconds


def _choice(family: str, circuits: Mapping[Shape, Document], model: ModelLayers, conditions: Conditions) -> Recommended:
    """Return circuits, one for every shape, with their figures summed over the layers of a model."""
    counts = Counter(model.shapes())
    rows = []
    for shape, document in circuits.items():
        compiled = compile_circuit(fitted_spec(document, *shape), conditions.tokens)
        rows.append(circuit_row(family, compiled, conditions))
    again = trained_again((layer.name, spec) for layer, spec in _fitted(circuits, model))
    row = summed(rows, [counts[shape] for shape in circuits], model.parameters, conditions.tokens, again)
    ranks = {shape: one.rank_upper or 0 for shape, one in zip(circuits, rows, strict=True)}
    return Recommended(family, circuits, replace(row, name=family, family=family), ranks)


def _fitted(circuits: Mapping[Shape, Document], model: ModelLayers) -> list[tuple[TargetLayer, CircuitSpec]]:
    """Return the layers of a model, each with its circuit."""
    specs = {shape: fitted_spec(document, *shape) for shape, document in circuits.items()}
    return [(layer, specs[layer.shape]) for layer in model.layers]
