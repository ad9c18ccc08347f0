"""Which circuit a file is for a layer: templates take the layer's widths, others are padded, truncated or refused."""

import os
from collections.abc import Mapping
from typing import Any

from quanta_compiler.presets.layouts import AUTO_RULE
from quanta_compiler.spec import load_spec, read_data
from quanta_compiler.spec.circuit_spec import CircuitSpec

_SAMPLE_WIDTH = 4096
"""A template is checked at some width; its errors at others are found when it meets a layer."""


class FeaturesError(ValueError):
    """There is no circuit for a layer, or it is written for other features."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def is_template(document: Mapping[str, Any]) -> bool:
    """Say whether a circuit takes its layout from the layer: `{auto: N}`, or a preset's own, without `in_features`."""
    layout = document.get("layout")
    chosen = isinstance(layout, Mapping) and "auto" in layout
    return (chosen or ("preset" in document and layout is None)) and "in_features" not in document


def checked_document(
    source: str | os.PathLike[str] | Mapping[str, Any], *, auto_rule: int = AUTO_RULE
) -> dict[str, Any]:
    """Return a circuit as it is written, as plain data, after its circuit was checked; raise SpecError."""
    data = read_data(source)
    sample = _SAMPLE_WIDTH if is_template(data) else None
    load_spec(source, in_features=sample, out_features=sample, auto_rule=auto_rule)
    return data


def fitted_spec(
    document: Mapping[str, Any], in_features: int, out_features: int, *, auto_rule: int = AUTO_RULE
) -> CircuitSpec:
    """Return a file's circuit for a layer.

    `{auto: N}` is laid out for the larger of the two sizes, by rule 2, or by 1 for adapters that were saved while it
    was the only one. Where a file does not write `in_features` or `out_features`, those of the layer are taken: its
    layout is used as it is written, padded with zeros or truncated.

    Raises:
        SpecError: the document is no circuit.
        FeaturesError: the document writes `in_features` or `out_features`, and they are not those of the layer.

    """
    if is_template(document):
        spec = load_spec(document, in_features=in_features, out_features=out_features, auto_rule=auto_rule)
    else:
        whole = {"in_features": in_features, "out_features": out_features, **document}
        spec = load_spec(whole, auto_rule=auto_rule)
    # A template takes its sizes from the layer; what it writes must agree all the same.
    written = document.get("out_features", out_features)
    if (spec.in_features, spec.out_features, written) != (in_features, out_features, out_features):
        asked = [key for key in ("in_features", "out_features") if key in document]
        wanted = f"{spec.in_features} -> {written}" if "out_features" in document else f"inputs of {spec.in_features}"
        message = (
            f"circuit {spec.name!r} is written for {wanted} features, the layer has {in_features} -> {out_features}"
        )
        # A preset's circuit is made for the widths of each layer; any other is used as it is written.
        then = "; every layer then has one of its own widths"
        if "preset" not in document:
            then = ", which is then padded or truncated"
        hint = f"leave {' and '.join(f'`{key}`' for key in asked)} out of the circuit{then}"
        raise FeaturesError(message, hint)
    return spec
