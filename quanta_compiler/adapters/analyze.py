"""Saved adapters looked at layer by layer, and beside each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from quanta_compiler.adapters.analysis import LayerFigures, Similarity, layer_figures, subspace_similarity
from quanta_compiler.adapters.saved import SavedAdapter
from quanta_compiler.diagnostics import refusal
from quanta_compiler.text.words import some_of


@dataclass(frozen=True, slots=True)
class AnalyzedAdapter:
    """An adapter and the figures of its layers."""

    path: str
    description: str
    layers: tuple[LayerFigures, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What `quanta analyze` finds: every adapter by itself, and the first beside each of the others."""

    adapters: tuple[AnalyzedAdapter, ...]
    similarities: tuple[Similarity, ...]

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "adapters": [
                {
                    "path": adapter.path,
                    "description": adapter.description,
                    "layers": [figures.to_dict(top) for figures in adapter.layers],
                }
                for adapter in self.adapters
            ],
            "similarities": [one.to_dict(similarity_points(self.similarities)) for one in self.similarities],
        }


def analyze(
    adapters: Sequence[SavedAdapter], *, vectors: int, device: torch.device, advance: Callable[[], None]
) -> Analysis:
    """Compute everything; `advance` is called after every layer. At most `vectors` singular vectors are compared."""
    _check_common_layers(adapters)
    analyzed = []
    kept = vectors if len(adapters) > 1 else 0
    for adapter in adapters:
        layers = []
        for layer, update in adapter.updates.items():
            layers.append(layer_figures(layer, update, vectors=kept, device=device))
            advance()
        analyzed.append(AnalyzedAdapter(adapter.path, adapter.description, tuple(layers)))
    return Analysis(tuple(analyzed), tuple(_similarities(analyzed)))


def _check_common_layers(adapters: Sequence[SavedAdapter]) -> None:
    """Raise SpecError where the first adapter and another have no layer in common, or one of another shape."""
    first = adapters[0]
    for other in adapters[1:]:
        common = [layer for layer in first.updates if layer in other.updates]
        if not common:
            message = f"it has no layer in common with {first.path}: {some_of(list(other.updates))}"
            hint = f"{first.path} has {some_of(list(first.updates))}; compare adapters of one model"
            raise refusal(other.path, message, hint=hint)
        for layer in common:
            (rows, columns), (known_rows, known_columns) = other.updates[layer].shape, first.updates[layer].shape
            if (rows, columns) != (known_rows, known_columns):
                message = f"it has {columns} -> {rows} features, in {first.path} {known_columns} -> {known_rows}"
                raise refusal(other.path, message, place=layer, hint="compare adapters of one model")


def _similarities(adapters: Sequence[AnalyzedAdapter]) -> list[Similarity]:
    found = []
    for place, other in enumerate(adapters[1:], start=1):
        by_layer = {figures.layer: figures for figures in other.layers}
        for figures in adapters[0].layers:
            if figures.layer in by_layer:
                phi = subspace_similarity(figures.right, by_layer[figures.layer].right)
                found.append(Similarity(figures.layer, 0, place, figures.in_features, phi))
    return found


def similarity_points(similarities: Sequence[Similarity]) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to the largest number of vectors that two updates both have."""
    largest = max((min(one.phi.shape) for one in similarities), default=0)
    return tuple(2**power for power in range(largest.bit_length()))
