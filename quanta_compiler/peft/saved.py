"""Saved weights: files that are damaged, and tensors that do not fit, are refused before any weight is changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from quanta_compiler.peft.errors import AdapterError, Problem, raise_problems
from quanta_compiler.peft.registration import METHOD

WEIGHTS = "adapter_model.safetensors"
_OTHER_MODEL = "load the adapter onto the base model that it was trained on"
_OTHER_CIRCUIT = "take the adapter_config.json that was saved with these weights"
_DAMAGED = "copy or download the file again, or take an earlier checkpoint if the training diverged"


def check_files(folder: str) -> None:
    """Raise AdapterError where the folder's weights are truncated or not finite; a missing file is PEFT's to report."""
    path = os.path.join(folder, WEIGHTS)
    if not os.path.isfile(path):
        return
    try:
        with safe_open(path, framework="pt") as file:
            problems = [
                Problem(f"{_shown(layer)}: {name} holds NaN or infinite numbers", _DAMAGED)
                for layer, part, name in (key.partition(f".{METHOD}_") for key in file.keys())  # noqa: SIM118
                if part and not _is_finite(file.get_tensor(layer + part + name))
            ]
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: the file is damaged ({error})\nhint: {_DAMAGED}") from None
    raise_problems(f"{path} is damaged:", problems)


def _is_finite(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def check_state(module: Any, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise AdapterError where what is about to be loaded below `module` does not fit its layers.

    It runs before anything is copied, as a pre-hook of `load_state_dict`: a whole adapter is refused, or none of it.
    """
    problems: list[Problem] = []
    known: set[str] = set()
    layers: set[str] = set()
    adapters: set[str] = set()
    for name, layer in module.named_modules():
        if hasattr(layer, f"{METHOD}_plan"):
            start = f"{prefix}{name}." if name else prefix
            layers.add(start.rstrip("."))
            adapters.update(layer.quanta_circuit_plan)
            for adapter in layer.quanta_circuit_plan:
                expected = dict(layer.state_shapes(adapter))
                known.update(start + key for key in expected)
                problems += _layer_problems(layer, adapter, expected, state_dict, start)
    for key in state_dict:
        layer, part, tensor = key.partition(f".{METHOD}_")
        if part and key.startswith(prefix) and key not in known:
            problems.append(_unexpected(layer, _as_saved(tensor, adapters), is_adapted=layer in layers))
    raise_problems("the saved adapter does not fit the model:", problems)


def check_layer(layer: Any, adapter: str, name: str) -> None:
    """Raise AdapterError where the tensors that a layer holds for an adapter do not fit it."""
    expected = dict(layer.state_shapes(adapter))
    state = {f"{name}.{key}": tensor for key, tensor in layer.state_dict().items()}
    problems = list(_layer_problems(layer, adapter, expected, state, f"{name}."))
    raise_problems("the loaded adapter does not fit the model:", problems)


def _unexpected(layer: str, tensor: str, is_adapted: bool) -> Problem:
    name = _shown(layer)
    if is_adapted:
        return Problem(f"{name}: {tensor} is saved, and the configuration has no place for it", _OTHER_CIRCUIT)
    return Problem(f"{name}: {tensor} is saved, and the model has no such adapted layer", _OTHER_MODEL)


def _as_saved(tensor: str, adapters: Collection[str]) -> str:
    """Return a tensor's name without that of the adapter, which PEFT 0.20 adds to every key that it loads."""
    group, _, rest = tensor.partition(".")
    adapter, _, name = rest.partition(".")
    return f"{group}.{name}" if name and adapter in adapters else tensor


def _shown(name: str) -> str:
    """Return a layer's name as the base model has it."""
    return name.rstrip(".").removeprefix("base_model.model.")


def _layer_problems(
    layer: Any, adapter: str, expected: Mapping[str, tuple[int, ...]], state_dict: Mapping[str, Any], start: str
) -> Iterator[Problem]:
    """Yield what is wrong with one layer's tensors; a layer of which nothing is loaded is PEFT's to report."""
    name = _shown(start)
    given = {key: state_dict[start + key] for key in expected if start + key in state_dict}
    features = given.get(f"{METHOD}_features.{adapter}")
    if isinstance(features, torch.Tensor) and features.shape == (2,) and not features.is_meta:
        saved, own = tuple(features.tolist()), (layer.in_features, layer.out_features)
        if saved != own:
            text = f"{name}: saved for {saved[0]} -> {saved[1]} features, the model's layer has {own[0]} -> {own[1]}"
            yield Problem(text, _OTHER_MODEL)
            return
    for key, shape in expected.items():
        tensor, shown = given.get(key), key.removeprefix(f"{METHOD}_").replace(f".{adapter}", "", 1)
        if tensor is None:
            if given:
                yield Problem(f"{name}: {shown} is missing", _DAMAGED)
        elif tuple(tensor.shape) != shape:
            text = f"{name}: {shown} is saved as {list(tensor.shape)}, the circuit needs {list(shape)}"
            yield Problem(text, _OTHER_CIRCUIT)
        elif not _is_finite(tensor):
            yield Problem(f"{name}: {shown} holds NaN or infinite numbers", _DAMAGED)
