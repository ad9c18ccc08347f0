"""Which keys of a mapping no layer's circuit comes from."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from quanta_compiler.diagnostics import meant
from quanta_compiler.models.fitting import FeaturesError
from quanta_compiler.models.targets import is_mapping, matches, target_for
from quanta_compiler.peft.errors import Problem


def module_names(model: nn.Module) -> list[str]:
    """Return the names of a model's modules, without what is inside of adapted layers."""
    names: list[str] = []
    inside = None
    for name, module in model.named_modules():
        # What is inside of a module comes right after it.
        if name and (inside is None or not name.startswith(inside)):
            names.append(name)
            inside = f"{name}." if isinstance(module, BaseTunerLayer) else None
    return names


def coverage(circuit: Any, names: Sequence[str], adapted: Collection[str]) -> tuple[list[Problem], list[str]]:
    """Return the keys of `circuit` that match no module, and those that reached no layer though they do, as sentences.

    `names` are the model's modules, `adapted` those with a circuit.
    """
    if not is_mapping(circuit):
        return [], []
    reached = set(_reached(circuit, adapted))
    unmatched: list[Problem] = []
    passed_over: list[str] = []
    for key in circuit:
        if key in reached:
            continue
        own = [name for name in names if matches(key, name)]
        layers = [name for name in own if name in adapted]
        if not own:
            unmatched.append(Problem(f"the circuit for {key!r} reaches no layer: no module matches", _hint(key, names)))
        elif not layers:
            passed_over.append(
                f"the circuit for {key!r} reaches no layer: {shown(own)} is not adapted; see `target_modules`, "
                "`exclude_modules`, `modules_to_save` and `layers_to_transform`"
            )
        else:
            others = sorted(set(_reached(circuit, layers)))
            passed_over.append(
                f"the circuit for {key!r} reaches no layer: {shown(layers)} takes the circuit of the longer key "
                f"{shown(list(map(repr, others)))}; of several keys that match, the longest counts"
            )
    return unmatched, passed_over


def _reached(circuit: Any, adapted: Collection[str]) -> Iterator[str]:
    """Yield the key of every adapted layer; one with two keys that are equally long is refused elsewhere."""
    for name in adapted:
        with suppress(FeaturesError):
            yield str(target_for(circuit, name))


def _hint(key: str, names: Sequence[str]) -> str:
    meant_there = key.removeprefix("^").removeprefix(r"\A")
    if meant_there != key and (example := next((name for name in names if matches(meant_there, name)), None)):
        return f"drop the {key[: len(key) - len(meant_there)]!r}: it means the beginning of the whole name, {example!r}"
    correct = meant(key, dict.fromkeys(name.rpartition(".")[2] for name in names), "correct it.", mark="'")
    return f"{correct} A key is a regular expression for the end of a module's name"


def shown(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
