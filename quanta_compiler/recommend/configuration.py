"""The `QuantaConfig` of circuits for the targets of a model, as Python text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quanta_compiler.models.layers import ModelLayers
from quanta_compiler.recommend.budget import Shape


@dataclass(frozen=True, slots=True)
class Group:
    """The layers of one name and one shape."""

    target: str
    """What PEFT finds them by: the end of their names, or all of those names where it has other shapes too."""
    in_features: int
    out_features: int
    layers: int

    @property
    def shape(self) -> Shape:
        """Return (in_features, out_features)."""
        return self.in_features, self.out_features


def groups_of(model: ModelLayers) -> tuple[Group, ...]:
    """Return the targets of a model by name and shape, in the model's order."""
    kinds = model.groups()
    shapes: dict[str, int] = {}
    for name, *_ in kinds:
        shapes[name] = shapes.get(name, 0) + 1
    return tuple(
        Group(name if shapes[name] == 1 else _whole_names(model, name, (wide, tall)), wide, tall, count)
        for name, wide, tall, count in kinds
    )


def _whole_names(model: ModelLayers, end: str, shape: Shape) -> str:
    names = [one.name for one in model.layers if (one.in_features, one.out_features) == shape]
    return "|".join(re.escape(name) for name in names if name.rpartition(".")[2] == end)


def configuration(groups: tuple[Group, ...], circuits: Mapping[Shape, Any]) -> str:
    """Return Python text that makes a `QuantaConfig` of a circuit for every shape; circuits are documents or paths."""
    chosen = {group.target: circuits[group.shape] for group in groups}
    if len({str(circuit) for circuit in chosen.values()}) == 1:
        circuit = f"    circuit={next(iter(chosen.values()))!r},\n    target_modules={list(chosen)!r},\n"
    else:
        lines = "".join(f"        {target!r}: {circuit!r},\n" for target, circuit in chosen.items())
        circuit = f"    circuit={{\n{lines}    }},\n"
    return f"QuantaConfig(\n{circuit})"
