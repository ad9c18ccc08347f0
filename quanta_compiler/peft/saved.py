"""Saved weights: files that are damaged, and tensors that do not fit, are refused before any weight is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from quanta_compiler.peft.errors import AdapterError, listed
from quanta_compiler.peft.registration import METHOD

WEIGHTS = "adapter_model.safetensors"


def check_files(folder: str) -> None:
    """Raise AdapterError where the folder's weights are truncated or no safetensors file; a missing file is PEFT's."""
    path = os.path.join(folder, WEIGHTS)
    if not os.path.isfile(path):
        return
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise AdapterError(
            f"{path}: the file is damaged ({error})\nhint: copy or download it again; an adapter is saved whole or not"
        ) from None


def check_state(module: Any, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise AdapterError where what is about to be loaded below `module` does not fit its layers.

    It runs before anything is copied, as a pre-hook of `load_state_dict`: a whole adapter is refused, or none of it.
    """
    from quanta_compiler.peft.layer import QuantaCircuitLayer

    problems: list[str] = []
    known: set[str] = set()
    for name, layer in module.named_modules():
        if isinstance(layer, QuantaCircuitLayer):
            start = f"{prefix}{name}." if name else prefix
            for adapter in layer.quanta_circuit_plan:
                expected = dict(layer.state_shapes(adapter))
                known.update(start + key for key in expected)
                problems += _layer_problems(layer, adapter, expected, state_dict, start)
    for key in state_dict:
        if f".{METHOD}_" in key and key.startswith(prefix) and key not in known:
            layer_name = key[len(prefix) :].partition(f".{METHOD}_")[0].removeprefix("model.")
            problems.append(
                f"{layer_name}: the adapter has {key.rpartition('.')[2]} for it, the model has no such layer"
            )
    if problems:
        raise AdapterError(
            f"the saved adapter does not fit the model:\n{listed(problems)}\n"
            "hint: load it onto the base model that it was trained on, with the adapter_config.json it was saved with"
        )


def _layer_problems(
    layer: Any, adapter: str, expected: Mapping[str, tuple[int, ...]], state_dict: Mapping[str, Any], start: str
) -> Iterator[str]:
    """Yield what is wrong with one layer's tensors; a layer of which nothing is loaded is PEFT's to report."""
    name = start.rstrip(".")
    given = {key: state_dict[start + key] for key in expected if start + key in state_dict}
    features = given.get(f"{METHOD}_features.{adapter}")
    if isinstance(features, torch.Tensor) and features.shape == (2,) and not features.is_meta:
        saved, own = tuple(features.tolist()), (layer.in_features, layer.out_features)
        if saved != own:
            yield f"{name}: saved for {saved[0]} -> {saved[1]} features, the model's layer has {own[0]} -> {own[1]}"
            return
    for key, shape in expected.items():
        if key not in given:
            if given:
                yield f"{name}: {key} is missing"
            continue
        tensor = given[key]
        if tuple(tensor.shape) != shape:
            yield f"{name}: {key} is saved as {list(tensor.shape)}, the circuit needs {list(shape)}"
        elif tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
            yield f"{name}: {key} holds NaN or infinite numbers"
