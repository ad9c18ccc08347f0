"""What takes part in a comparison: circuit files and baselines, and the circuit that each is for a layer's widths."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quanta_compiler.compare.methods import METHODS, Method, parse_method
from quanta_compiler.diagnostics import Diagnostic, SpecError, offered, refusal
from quanta_compiler.models.fitting import FeaturesError, checked_document, fitted_spec, is_template
from quanta_compiler.models.targets import check_targets, circuit_for, matches
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.files import STANDARD_INPUT, standard_input
from quanta_compiler.spec.short_notation import check_colon, preset_document

Shape = tuple[int, int]
"""A layer's (in_features, out_features)."""


class CompareError(ValueError):
    """What was asked for cannot be compared; the message says why, `option` what on the command line is wrong."""

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message)
        self.option = option


@dataclass(frozen=True)
class CircuitEntrant:
    """A circuit file or a preset: a document, or one for each target of a model."""

    source: str
    documents: Mapping[str, dict[str, Any]]
    """By target; one under the empty name where it is for every layer."""
    is_baseline: bool = False
    """Whether it is a preset, which every layer gets whatever the files are for."""
    has_magnitudes: bool = False
    """Whether the rows of W + T have trained magnitudes, as with `QuantaConfig(dora=True)`."""

    @property
    def name(self) -> str:
        """Return the baseline as it was asked for, or the names of the file's circuits."""
        return (
            self.source
            if self.is_baseline
            else ", ".join(dict.fromkeys(str(document["name"]) for document in self.documents.values()))
        )

    @property
    def fixed_shape(self) -> Shape | None:
        """Return the widths that the file itself gives; None where it waits for those of a layer."""
        document = self.documents.get("")
        if document is None or is_template(document):
            return None
        spec = load_spec(document)
        return spec.in_features, spec.out_features

    def document(self, layer: str) -> dict[str, Any]:
        """Return the circuit for a layer, by its name.

        Raises:
            SpecError: none of the circuits is for it, or two are.

        """
        if "" in self.documents:
            return self.documents[""]
        try:
            chosen = circuit_for(self.documents, layer)
        except FeaturesError as error:
            raise refusal(self.source, f"layer {layer}: {error}", hint=error.hint) from None
        assert isinstance(chosen, dict)
        return chosen

    def spec(self, document: Mapping[str, Any], shape: Shape) -> CircuitSpec:
        """Return one of the circuits for a layer of a shape, as an adapter takes it.

        Raises:
            SpecError: it does not fit.

        """
        try:
            return fitted_spec(document, *shape)
        except FeaturesError as error:
            raise refusal(self.source, str(error), hint=error.hint) from None
        except SpecError as error:
            # The user knows the circuit by this name.
            diagnostics = [replace(diagnostic, source=self.source) for diagnostic in error.diagnostics]
            raise SpecError(diagnostics, error.omitted) from None

    def unused(self, layers: Sequence[str]) -> list[Diagnostic]:
        """Return a warning for every target that none of the layers is."""
        targets = [target for target in self.documents if not any(matches(target, layer) for layer in layers)]
        return [
            Diagnostic("warning", f"no layer that is adapted is called {target!r}", self.source)
            for target in targets
            if target
        ]


@dataclass(frozen=True, slots=True)
class MethodEntrant:
    """A method that is no circuit, or the dense layer, with the number that it is given."""

    source: str
    method: Method
    value: int


Entrant = CircuitEntrant | MethodEntrant


def file_entrant(text: str) -> CircuitEntrant:
    """Read `FILE`, or `TARGET=FILE,TARGET=FILE` where the layers of a model get circuits of their own."""
    documents = {
        target: checked_document(standard_input() if file == STANDARD_INPUT else Path(file))
        for target, file in named_files(text).items()
    }
    return CircuitEntrant(text, documents)


def named_files(text: str) -> dict[str, str]:
    """Return the circuit files that a text names, by target; one under the empty name where it is for every layer.

    Raises:
        CompareError: a target is named twice, or is no regular expression.

    """
    pieces = [piece.partition("=") for piece in text.split(",")]
    if os.path.exists(text) or not all(target and file for target, _, file in pieces):
        return {"": text}
    files = {target: file for target, _, file in pieces}
    if len(files) < len(pieces):
        raise CompareError(f"{text!r} names a target twice", "FILE")
    try:
        check_targets(files)
    except ValueError as error:
        raise CompareError(str(error), "FILE") from None
    return files


def baseline_entrant(text: str) -> Entrant:
    """Read a baseline: `dense`, a preset such as `lora:8` or `krona:64-64`, or a method such as `dora:8`.

    `dora:` before a preset or a circuit file is that circuit with DoRA's magnitudes.

    Raises:
        CompareError: there is none of that name, or its value is wrong.
        SpecError: the circuit file is wrong.

    """
    name, _, inner = text.partition(":")
    try:
        if name == "dora" and inner.partition(":")[0] in PRESETS:
            return CircuitEntrant(text, {"": preset_document(inner)}, is_baseline=True, has_magnitudes=True)
        if name == "dora" and os.path.isfile(inner):
            return CircuitEntrant(text, {"": checked_document(Path(inner))}, is_baseline=True, has_magnitudes=True)
        if name in PRESETS:
            return CircuitEntrant(text, {"": preset_document(text)}, is_baseline=True)
        method = parse_method(text)
        if method is None:
            check_colon(text, (*PRESETS, *METHODS))
    except ValueError as error:
        raise CompareError(str(error), "--baseline") from None
    if method is not None:
        return MethodEntrant(text, *method)
    known = [*PRESETS, *METHODS]
    hint = offered(name, known, f"there is {', '.join(known)}", mark="'")
    raise CompareError(f"unknown baseline {text!r}: {hint}", "--baseline")
