"""The `QuantaConfig` of circuits for the targets of a model, as Python text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quanta_compiler.models.layers import ModelLayers
from quanta_compiler.models.targets import is_name, matches, plain_targets
from quanta_compiler.presets.starting import StartingPoint
from quanta_compiler.recommend.budget import Shape


@dataclass(frozen=True, slots=True)
class Group:
    """The layers of one name and one shape."""

    name: str
    """The end of their names."""
    target: str
    """What PEFT finds them by, and nothing else: a name, or a regular expression for the end of one."""
    in_features: int
    out_features: int
    layers: int

    @property
    def shape(self) -> Shape:
        """Return (in_features, out_features)."""
        return self.in_features, self.out_features


def groups_of(model: ModelLayers) -> tuple[Group, ...]:
    """Return the targets of a model by name and shape, in the model's order."""
    return tuple(
        Group(name, _target(model, name, (wide, tall)), wide, tall, count) for name, wide, tall, count in model.groups()
    )


def _target(model: ModelLayers, end: str, shape: Shape) -> str:
    """Return the shortest end that means these layers alone: with any numbers, else with those in their names."""
    names, strangers = [], list(model.others)
    for layer in model.layers:
        if layer.name.rpartition(".")[2] == end and (layer.in_features, layer.out_features) == shape:
            names.append(layer.name.split("."))
        else:
            strangers.append(layer.name)
    longest = max(map(len, names))
    for pattern in (_any_number, _these_numbers):
        for length in range(1, longest + 1):
            target = pattern([name[-length:] for name in names])
            if not any(matches(target, stranger) for stranger in strangers):
                return target
    return _these_numbers(names)


def _any_number(ends: Sequence[Sequence[str]]) -> str:
    found = dict.fromkeys(tuple(r"\d+" if part.isdigit() else part for part in end) for end in ends)
    return _joined(found)


def _these_numbers(ends: Sequence[Sequence[str]]) -> str:
    """Return ends that differ in their first number alone as one."""
    numbers: dict[tuple[str, ...], list[str]] = {}
    for end in ends:
        place = next((i for i, part in enumerate(end) if part.isdigit()), None)
        rest = tuple("" if i == place else part for i, part in enumerate(end))
        numbers.setdefault(rest, []).append("" if place is None else end[place])
    return _joined(
        tuple(part or _one_of(list(dict.fromkeys(found))) for part in rest) for rest, found in numbers.items()
    )


def _one_of(numbers: Sequence[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"(?:{'|'.join(numbers)})"


def _joined(ends: Iterable[tuple[str, ...]]) -> str:
    """Return ends as alternatives; one without numbers is a name as it stands."""
    texts = [".".join(end) for end in ends]
    if len(texts) == 1 and is_name(texts[0]):
        return texts[0]
    return "|".join(text.replace(".", r"\.") for text in texts)


def configuration(groups: tuple[Group, ...], circuits: Mapping[Shape, Any], starting: StartingPoint | None) -> str:
    """Return Python text that makes a `QuantaConfig` of a circuit for every shape; circuits are documents or paths.

    Where to start is a comment: the learning rate is the optimizer's, and not every layer takes every residual.
    """
    chosen = {group.target: circuits[group.shape] for group in groups}
    if len({str(circuit) for circuit in chosen.values()}) == 1:
        targets = list(chosen) if all(map(is_name, chosen)) else plain_targets(chosen)
        circuit = f"    circuit={next(iter(chosen.values()))!r},\n    target_modules={targets!r},\n"
    else:
        lines = "".join(f"        {target!r}: {circuit!r},\n" for target, circuit in chosen.items())
        circuit = f"    circuit={{\n{lines}    }},\n"
    if starting is None:
        return f"QuantaConfig(\n{circuit})"
    start = (
        f"    # Start with AdamW's learning rate {starting.learning_rate:g}, scale={starting.scale:g} and "
        f"residual={starting.residual!r}:\n"
    )
    return f"QuantaConfig(\n{circuit}{start}    # {starting.measured}\n)"
