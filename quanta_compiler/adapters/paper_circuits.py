"""The circuits that gates of the QuanTA paper's code make up, and which layers have which."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quanta_compiler.adapters.paper_keys import Pair, PaperLayer, natural_key, pair_text, pairs_in_order
from quanta_compiler.adapters.tensor_file import TensorFile
from quanta_compiler.diagnostics import Diagnostic, problem, quote
from quanta_compiler.spec.names import NAME_LENGTH


@dataclass(frozen=True, slots=True)
class PaperCircuit:
    """A layout and the pairs of axes that have a gate, in the order in which the paper's code applies them."""

    layout: tuple[int, ...]
    pairs: tuple[Pair, ...]

    def missing(self) -> list[Pair]:
        """Return the pairs of axes without a gate; the paper's code has one for each."""
        return [pair for pair in pairs_in_order(len(self.layout)) if pair not in self.pairs]

    def document(self) -> dict[str, Any]:
        """Return the circuit file: the pattern where it is complete, otherwise gate by gate."""
        name = "-".join(["quanta", *map(str, self.layout)])
        axis_count = len(self.layout)
        return {
            "version": 1,
            "name": name if len(name) <= NAME_LENGTH else "quanta",
            "layout": list(self.layout),
            "gates": [[axis_count + b, axis_count + a] for a, b in self.pairs] if self.missing() else ["all_pairs"],
        }


@dataclass(frozen=True, slots=True)
class ImportedLayer:
    """One layer of the new adapter."""

    keys: PaperLayer
    circuit: PaperCircuit
    features: tuple[int, int]
    """in_features and out_features."""


def find_circuit(file: TensorFile, layer: PaperLayer, given: tuple[int, ...] | None) -> PaperCircuit | list[Diagnostic]:
    """Return the circuit of one layer, or every reason why its gates make none; `given` is the user's layout."""
    sizes, problems = _axis_sizes(file, layer)
    problems += _pairing_problems(file, layer)
    axis_count = -min(min(pair) for pair in (*layer.trained, *layer.frozen))
    told = "x".join(str(sizes.get(axis, "?")) for axis in range(-axis_count, 0))
    if given is not None:
        wrong = axis_count > len(given) or any(given[axis] != size for axis, size in sizes.items())
        if wrong and not problems:
            message = f"its gates are of the layout {told}, --layout says {'x'.join(map(str, given))}"
            problems.append(problem(file.name, message, place=layer.module, hint="leave out --layout, or correct it"))
    elif len(sizes) < axis_count:
        message = f"its gates tell the layout {told} only"
        problems.append(problem(file.name, message, place=layer.module, hint="give the whole layout with --layout"))
    if problems:
        return problems
    layout = given or tuple(sizes[axis] for axis in range(-axis_count, 0))
    return PaperCircuit(layout, tuple(pair for pair in pairs_in_order(len(layout)) if pair in layer.trained))


def _axis_sizes(file: TensorFile, layer: PaperLayer) -> tuple[dict[int, int], list[Diagnostic]]:
    """Return the size of every axis that a gate acts on, and the axes of which two gates say different sizes."""
    sizes: dict[int, tuple[int, str]] = {}
    problems: dict[int, Diagnostic] = {}
    for (a, b), key in [*layer.trained.items(), *layer.frozen.items()]:
        for axis, size in ((b, file.shapes[key][0]), (a, file.shapes[key][1])):
            known, other = sizes.setdefault(axis, (size, key))
            if known != size:
                message = f"axis {axis} has the size {size} here and {known} in {quote(other)}"
                hint = "the file mixes gates of several layouts: take the state dict of one run"
                problems.setdefault(axis, problem(file.name, message, place=key, hint=hint))
    return {axis: size for axis, (size, _) in sizes.items()}, list(problems.values())


def _pairing_problems(file: TensorFile, layer: PaperLayer) -> list[Diagnostic]:
    """Return what is wrong between trained gates and frozen copies; no frozen copies at all is another question."""
    if not layer.trained:
        message = f"it has frozen copies (`quanta_weights2`) of {pair_text(sorted(layer.frozen)[::-1])} but no gates"
    elif layer.frozen and set(layer.frozen) != set(layer.trained):
        lonely = sorted(set(layer.frozen) ^ set(layer.trained), reverse=True)
        message = f"it has a gate or its frozen copy (`quanta_weights2`), but not both, for {pair_text(lonely)}"
    else:
        return []
    return [problem(file.name, message, place=layer.module, hint="take the whole state dict")]


def circuit_field(layers: Sequence[ImportedLayer]) -> dict[str, Any]:
    """Return one circuit for all layers, or a mapping from as few names as tell the layers apart.

    A layer's last name component stands for all layers that end in it, where these share one circuit; otherwise
    their full names are listed.
    """
    if len({layer.circuit for layer in layers}) == 1:
        return layers[0].circuit.document()
    by_ending: dict[str, list[ImportedLayer]] = {}
    for layer in layers:
        by_ending.setdefault(_ending(layer.keys.module), []).append(layer)
    field: dict[str, Any] = {}
    for ending, members in by_ending.items():
        if len({layer.circuit for layer in members}) == 1:
            field[re.escape(ending)] = members[0].circuit.document()
        else:
            # PEFT lets any prefix stand before a pattern: `^` keeps a short name from matching inside a longer one.
            field |= {f"^{re.escape(layer.keys.module)}": layer.circuit.document() for layer in members}
    return field


def target_names(file: TensorFile, layers: Sequence[ImportedLayer]) -> list[str]:
    """Return `target_modules`: last name components where these mean exactly the adapted layers, else full names.

    What else the model has is known as far as the file holds its weights. Without them, the components are taken where
    they all occur in the same blocks.
    """
    adapted = {layer.keys.module for layer in layers}
    endings = {_ending(module) for module in adapted}
    # What stands before the names of modules in the file.
    wrapper = layers[0].keys.prefix.removesuffix(layers[0].keys.module)
    for key in file.shapes:
        module, _, parameter = key.removeprefix(wrapper).rpartition(".")
        module = module.removesuffix(".base_layer")
        if parameter == "weight" and module not in adapted and _ending(module) in endings:
            return sorted(adapted, key=natural_key)
    blocks = {tuple(sorted(_block(module) for module in adapted if _ending(module) == ending)) for ending in endings}
    return sorted(endings if len(blocks) == 1 else adapted, key=natural_key)


def _ending(module: str) -> str:
    return module.rpartition(".")[2]


def _block(module: str) -> str:
    """Return the numbers in a module's name: which block of the model it is in."""
    return ".".join(re.findall(r"(?<![^.])\d+(?![^.])", module))


def base_features(file: TensorFile, layer: PaperLayer) -> tuple[int, int] | None:
    """Return in_features and out_features by the layer's own weight, `[out, in]`, where the file holds it."""
    for name in ("weight", "base_layer.weight"):
        shape = file.shapes.get(f"{layer.prefix}.{name}", ())
        # Weights of 4 bits are packed into a column of bytes.
        if len(shape) == 2 and 1 not in shape:
            return shape[1], shape[0]
    return None
