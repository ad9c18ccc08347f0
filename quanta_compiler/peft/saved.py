"""Saved weights: files that are damaged, and tensors that do not fit, are refused before any weight is changed."""

import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from quanta_compiler.nn import whole, wide
from quanta_compiler.peft.errors import AdapterError, Problem, raise_problems
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.rounding import ENDS, FORM, Rounding, pack, unpack
from quanta_compiler.peft.shared import SHARED, Shared

_DELTA, _GATES, _FROZEN = (f"{METHOD}_{part}." for part in ("delta", "gates", "frozen"))
_TRAINED = re.compile(rf"{METHOD}_(?:(?:delta|gates)\.|shared\.[^.]+\.(?:delta|gates)-)")
WEIGHTS = "adapter_model.safetensors"
_MODEL = "base_model.model."
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
            check_keys(file.keys(), path)
            problems = [
                Problem(f"{_shown(layer)}: {name} holds NaN or infinite numbers", _DAMAGED)
                for layer, part, name in (key.partition(f".{METHOD}_") for key in file.keys())  # noqa: SIM118
                if part and not _is_finite(file.get_tensor(layer + part + name))
            ]
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: the file is damaged ({error})\nhint: {_DAMAGED}") from None
    raise_problems(f"{path} is damaged:", problems)


_WRAPPED = re.compile(r"((?:_orig_mod|module|_fsdp_wrapped_module)\.)+(?=base_model\.model\.)")


def check_keys(keys: Collection[str], place: str) -> None:
    """Raise AdapterError where saved keys are those of a wrapped model, or none is one of ours."""
    problems = []
    for key in keys:
        wrapper, (layer, part, _) = _WRAPPED.match(key), key.partition(f".{METHOD}_")
        if wrapper is not None and part:
            text = f"its keys begin with `{wrapper[0]}`, and no layer would get them"
            problems.append(Problem(f"{_shown(layer[wrapper.end() :])}: {text}", _UNWRAP))
    raise_problems(f"{place} holds the state of a wrapped model:", list(dict.fromkeys(problems)))
    if not any(f"{METHOD}_" in key for key in keys):
        raise AdapterError(f"{place} holds no tensor of a circuit adapter\nhint: {_SAVE_WHOLE}")


def warn_of_nothing_saved(state_dict: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Warn where PEFT finds nothing of the adapter in a state dict that has it under other keys."""
    other = next((key for key in state_dict if f"{METHOD}_" in key), None)
    if other is not None and not any(f"{METHOD}_" in key for key in saved):
        warnings.warn(
            f"nothing of the circuit adapter is saved: the state dict has keys such as {other!r}, which no layer of "
            f"the model has\nhint: {_SAVE_WHOLE}",
            stacklevel=2,
        )


_SAVE_WHOLE = (
    "save the adapter with model.save_pretrained(folder); a `state_dict` given to it has the keys of the PeftModel, "
    "without the `_orig_mod.` of torch.compile or the `module.` of DistributedDataParallel"
)
_BARE = (
    f"put `{_MODEL}` before the keys: those of an adapter that was injected into a model do not begin with it, and a "
    "PeftModel's do"
)
_UNWRAP = (
    "save the model inside: model.save_pretrained(folder) of the PeftModel itself, or take the beginning off the keys "
    "(torch.compile adds `_orig_mod.`, DistributedDataParallel `module.`)"
)


def as_differences(state_dict: MutableMapping[str, Any], expected: Collection[str] | None = None) -> None:
    """Put D = T - S, in float32 at least, in the place of T: adapters saved in format 1 hold T and S.

    `expected` are the keys of D that are wanted; by default all.
    """
    for key in [key for key in state_dict if _GATES in key]:
        start, _, name = key.rpartition(_GATES)
        copy = state_dict.get(start + _FROZEN + name)
        if copy is not None and (expected is None or start + _DELTA + name in expected):
            state_dict[start + _DELTA + name] = wide(state_dict.pop(key)) - wide(copy)


def pack_trained(state_dict: MutableMapping[str, Any], rounding: Rounding) -> None:
    """Put packed codes in the place of what trains."""
    for key in filter(_TRAINED.search, list(state_dict)):
        state_dict.update({key + behind: part for behind, part in pack(whole(state_dict[key]), rounding).items()})


def _unpack_trained(state_dict: MutableMapping[str, Any]) -> None:
    """Put the numbers, in float32, in the place of packed codes."""
    problems = []
    for key in [key.removesuffix(FORM) for key in state_dict if key.endswith(FORM)]:
        try:
            state_dict[key] = unpack({behind: state_dict.pop(key + behind, None) for behind in ("", ENDS, FORM)})
        except ValueError as error:
            layer, _, name = key.partition(f".{METHOD}_")
            problems.append(Problem(f"{_shown(layer)}: {name} cannot be unpacked: {error}", _DAMAGED))
    raise_problems("the saved adapter is damaged:", problems)


def readable(model: Any, adapter: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adapter's saved tensors, their keys without its name, as its layers in a model take them.

    The keys of what layers have together are those of the model already: PEFT knows those of layers alone.

    Raises:
        AdapterError: a layer of the model would get nothing, the keys are those of a wrapped model, or packed tensors
            are damaged.

    """
    result = dict(state_dict)
    check_keys(result, "the state dict")
    _unpack_trained(result)
    missing = []
    for start, holder, adapters in _holders(model):
        if adapter not in adapters:
            continue
        keys = {key.replace(f".{adapter}", "", 1): start + key for key, _ in holder.state_shapes(adapter)}
        # PEFT takes `base_model.model.` off the keys where the model's own names do not begin with it.
        starts = (start, _MODEL + start)
        for own in starts:
            as_differences(result, {own + key for key in keys})
        what = "for it"
        if isinstance(holder, Shared):
            what, called = (
                "of what layers have together",
                {own + short: keys[short] for short in keys for own in starts},
            )
            result = {called.get(key, key): tensor for key, tensor in result.items()}
        beginnings = tuple(f"{own}{METHOD}_" for own in starts)
        if not any(key.startswith(beginnings) for key in result):
            is_bare = any(key.startswith(f"{_shown(start)}.{METHOD}_") for key in result)
            missing.append(Problem(f"{_shown(start)}: nothing is saved {what}", _BARE if is_bare else _OTHER_MODEL))
    raise_problems("the saved adapter does not fit the model:", missing)
    return result


def saved_bytes(model: Any, adapter_name: str = "default") -> int:
    """Return the bytes of all tensors that are saved of an adapter."""
    state = get_peft_model_state_dict(model, adapter_name=adapter_name)
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _is_finite(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def check_state(module: Any, state_dict: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise AdapterError where what is about to be loaded below `module` does not fit its layers.

    It runs before anything is copied, as a pre-hook of `load_state_dict`: a whole adapter is refused, or none of it.
    """
    problems: list[Problem] = []
    known: set[str] = set()
    layers: set[str] = set()
    for name, holder, adapters in _holders(module):
        start = prefix + name
        layers.add(start.rstrip("."))
        for adapter in adapters:
            expected = dict(holder.state_shapes(adapter))
            keys = {start + key for key in expected}
            as_differences(state_dict, keys)
            known |= keys
            problems += _problems(holder, adapter, expected, state_dict, start)
    for key in state_dict:
        layer, part, tensor = f".{key}".partition(f".{METHOD}_")
        layer = layer[1:]
        if part and key.startswith(prefix) and key not in known:
            lacking = "the configuration has no place for it", _OTHER_CIRCUIT
            if layer not in layers:
                lacking = "the model has no such adapted layer", _OTHER_MODEL
            problems.append(Problem(f"{_shown(layer)}: {tensor} is saved, and {lacking[0]}", lacking[1]))
    raise_problems("the saved adapter does not fit the model:", problems)


def settle_loaded(module: Any, _: Any) -> None:
    """Take what a layer was given by `load_state_dict` as what it is today, and fold copies anew."""
    for adapter in list(module.quanta_circuit_plan):
        module.take_difference(adapter)
        module._fold_again(adapter)


def check_layer(layer: Any, adapter: str, name: str) -> None:
    """Raise AdapterError where the tensors that a layer holds for an adapter do not fit it."""
    # Not its state_dict, which saves the sizes that the layer has, whatever was loaded.
    state = {f"{name}.{key}": tensor for key, tensor in layer.named_parameters()}
    problems = [*_problems(layer, adapter, dict(layer.state_shapes(adapter)), state, f"{name}.")]
    if adapter in layer.quanta_circuit_shared:
        for key, tensor, shape in layer.quanta_circuit_shared[adapter].expected():
            problems += _problems(layer, adapter, {key: shape}, {key: tensor}, "")
    raise_problems("the loaded adapter does not fit the model:", problems)


def _holders(model: Any) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Yield layers, and what they have together, each with what its keys begin with and its adapters."""
    for name, module in model.named_modules():
        if isinstance(module, Shared):
            yield name.removesuffix(SHARED), module, tuple(module)
        elif hasattr(module, f"{METHOD}_plan"):
            yield f"{name}." if name else "", module, tuple(module.quanta_circuit_plan)


def _shown(name: str) -> str:
    # What layers have together is the model's.
    return f"{name.rstrip('.')}.".removeprefix(_MODEL).rstrip(".") or "the model"


def _problems(
    holder: Any, adapter: str, expected: Mapping[str, tuple[int, ...]], state_dict: Mapping[str, Any], start: str
) -> Iterator[Problem]:
    """Yield what is wrong with one layer's tensors; a layer of which nothing is loaded is PEFT's to report."""
    name = _shown(start)
    given = {key: state_dict[start + key] for key in expected if start + key in state_dict}
    features = given.get(f"{METHOD}_features.{adapter}")
    if isinstance(features, torch.Tensor) and features.shape == (2,) and not features.is_meta:
        features, own = whole(features).cpu(), (holder.in_features, holder.out_features)
        # A whole state dict may have been cast.
        if not torch.equal(features, torch.tensor(own, dtype=features.dtype)):
            saved = tuple(map(int, features.tolist()))
            text = f"{name}: saved for {saved[0]} -> {saved[1]} features, the model's layer has {own[0]} -> {own[1]}"
            yield Problem(text, _OTHER_MODEL)
            return
    for key, shape in expected.items() if given else ():
        tensor, shown = given.get(key), key.removeprefix(f"{METHOD}_").replace(f".{adapter}", "", 1)
        if tensor is None:
            yield Problem(f"{name}: {shown} is missing", _DAMAGED)
        elif tuple(tensor.shape) != shape:
            text = f"{name}: {shown} is saved as {list(tensor.shape)}, the circuit needs {list(shape)}"
            yield Problem(text, _OTHER_CIRCUIT)
        elif not _is_finite(tensor):
            yield Problem(f"{name}: {shown} holds NaN or infinite numbers", _DAMAGED)
