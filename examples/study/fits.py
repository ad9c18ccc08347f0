"""Which circuits could be the updates of full fine-tuning: each family's circuit fitted to some of them."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from families import FAMILIES, SQUARE
from safetensors.torch import save_file
from tqdm import tqdm

import quanta_compiler as qc
from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.search.fit import FitOptions, FitTask, Updates, lora_error, run_fit

LAYERS = tuple(f"encoder.layer.{layer}.attention.self.{name}" for layer in (0, 5) for name in ("query", "value"))
"""The layers whose updates are fitted, all 384 -> 384."""
LORAS = {"lora-r2": 2, "lora-r8": 8}
STEPS = 200


@dataclass(frozen=True, slots=True)
class Fitted:
    """How well a method can be the updates: the root of the mean square of its relative errors."""

    method: str
    numbers: int
    """Trained in a layer."""
    error: float


def fit_families(folder: Path, steps: int = STEPS) -> list[Fitted]:
    """Fit the circuits to the updates that an adapter has; of LoRA the best matrix of its rank is known.

    Left out is what cannot be fitted so: what turns the layer's input, what layers share, and products of rotations,
    which begin as the identity.
    """
    updates = read_adapter(folder).updates
    matrices = {name: updates[name].matrix(torch.device("cpu")).float().contiguous() for name in LAYERS}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "updates.safetensors"
        save_file(matrices, file)
        given = Updates(file, None, LAYERS)
        loras = [
            Fitted(name, rank * 768, _root([lora_error(given, key, rank) for key in LAYERS]))
            for name, rank in LORAS.items()
        ]
        options = FitOptions(given, steps)
        found = tqdm(documents().items(), desc="fits", unit="circuit", leave=False)
        return [*loras, *(_fitted(method, document, options) for method, document in found)]


def _fitted(method: str, document: dict[str, Any], options: FitOptions) -> Fitted:
    errors = [run_fit(options, FitTask(document, key)).error for key in LAYERS]
    numbers = qc.compile_circuit(document).report.parameters.trainable
    return Fitted(method, numbers, _root(errors))


def documents() -> dict[str, dict[str, Any]]:
    """Return the circuits on layers 384 -> 384 that can be fitted, by method, each with an orthogonal start.

    A circuit that several methods begin in different ways stands under the one that begins it so too.
    """
    found: dict[str, dict[str, Any]] = {}
    for method, family in FAMILIES.items():
        circuit = family.options.get("circuit")
        if circuit is None or family.options.get("placement") == "input":
            continue
        document = circuit.get(SQUARE, circuit)
        if document.get("init") in ("kaiming_uniform", "identity"):
            continue
        sized = {**document, "in_features": 384, "out_features": 384} if "preset" in document else document
        expanded = _begun_orthogonal(sized)
        if expanded is not None and expanded not in found.values():
            found[method] = expanded
    return found


def _begun_orthogonal(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return a circuit written out, none of its gates zero at the start; None for what is not all dense gates."""
    expanded: dict[str, Any] = json.loads(str(qc.compile_circuit(document).module(seed=0).circuit))
    gates = [{key: value for key, value in gate.items() if key != "init"} for gate in expanded["gates"]]
    if any(gate.get("kind", "dense") not in ("dense", "slice") or gate.get("across") for gate in gates):
        return None
    return {**expanded, "init": "orthogonal", "gates": gates}


def _root(errors: list[float]) -> float:
    return math.sqrt(statistics.fmean(error * error for error in errors))
