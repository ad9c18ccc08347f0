"""Saved adapters, read without a base model: ours, and those of PEFT's LoRA."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.adapters.lora import lora_updates
from quanta_compiler.adapters.output import CONFIG_FILE, PICKLE_FILE, WEIGHTS_FILE
from quanta_compiler.adapters.tensor_file import TensorFile, open_tensors
from quanta_compiler.adapters.updates import CircuitUpdate, Update, layer_updates
from quanta_compiler.diagnostics import Diagnostic, escape, quote, refusal
from quanta_compiler.nn import FittedCircuit, wide
from quanta_compiler.text.words import some_of

_OURS = "QUANTA_CIRCUIT"
_MERGE = "merge it into its model and convert the difference to LoRA"
TENSOR_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<layer>.+)\.quanta_circuit_(?P<part>(?:delta|gates|frozen|features)(?:\.[^.]+)?)"
)
_PARTS = ("delta", "gates", "frozen")
_SHARED = re.compile(r"(?:base_model\.model\.)?quanta_circuit_shared\.(?P<key>[^.]+)")


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """A saved adapter: its updates by layer, in the order of the layers' names, numbers counted."""

    path: str
    """The folder as the user named it."""
    description: str
    """The method and what it is set to: `LoRA, r = 8`."""
    updates: Mapping[str, Update]
    warnings: tuple[Diagnostic, ...] = ()


def read_adapter(folder: Path, layers: re.Pattern[str] | None = None) -> SavedAdapter:
    """Read a saved adapter; of its layers only those whose name `layers` finds something in.

    Raises:
        SpecError: the folder is no adapter, is damaged, or is of a method whose update this cannot compute.

    """
    config = _read_config(folder)
    method = config.get("peft_type")
    if method not in (_OURS, "LORA"):
        message = f"it is an adapter of the method {quote(method)}; `analyze` reads {_OURS} and LORA"
        raise refusal(folder / CONFIG_FILE, message, hint=_MERGE)
    if not (folder / WEIGHTS_FILE).exists() and (folder / PICKLE_FILE).exists():
        message = f"the weights are a pickle, {PICKLE_FILE}; only safetensors are read"
        raise refusal(folder, message, hint="load the adapter with PEFT and save it again")
    file = open_tensors(folder / WEIGHTS_FILE)
    if method == "LORA":
        return SavedAdapter(str(folder), *lora_updates(folder / CONFIG_FILE, config, file, layers))
    ours, file = quanta_config(folder), unpacked(file)
    if ours.dora:
        message = "`dora` is set: the update is not that of the circuits alone, but of the weight's rows"
        raise refusal(folder / CONFIG_FILE, message, hint=_MERGE)
    if ours.target_parameters:
        message = "it has a circuit on every expert of a tensor (`target_parameters`); `analyze` reads linear layers"
        raise refusal(folder / CONFIG_FILE, message, hint="merge it, and look at the difference of the weights")
    hint = "the folder's files do not belong together, or were changed: restore those that were saved"
    updates = layer_updates(file, TENSOR_KEY, layers, partial(_circuit_update, ours, file), hint)
    names = sorted({update.circuit.spec.name for update in updates.values()})
    shown = names if len(names) <= 3 else [*names[:3], "…"]
    scale = f", scale {ours.scale:g}" if ours.scale != 1 else ""
    return SavedAdapter(str(folder), f"circuit {', '.join(shown)}, residual {ours.residual}{scale}", updates)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        fact = "it is a file" if folder.exists() else "there is no such folder"
        raise refusal(folder, fact, hint="give the folder that `save_pretrained` wrote; one on a hub, download first")
    if not path.is_file():
        # PEFT saves an adapter that is not called `default` one level down.
        inner = sorted(str(path.parent) for path in folder.glob(f"*/{CONFIG_FILE}"))
        hint = f"there are adapters inside: {some_of(inner)}" if inner else None
        raise refusal(folder, f"it is no saved adapter: it has no {CONFIG_FILE}", hint=hint)
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise refusal(path, f"it is no JSON: {error}", hint="restore the file that was saved") from None
    if not isinstance(config, dict):
        raise refusal(path, "it is no JSON object", hint="restore the file that was saved")
    return config


def quanta_config(folder: Path) -> Any:
    """Return the configuration, which refuses a circuit that was changed by hand; weights are looked at elsewhere."""
    from quanta_compiler.peft import QuantaConfig

    try:
        return QuantaConfig.from_peft_type(**QuantaConfig.from_json_file(str(folder / CONFIG_FILE)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message, _, hint = str(error).partition("\nhint: ")
        remedy = hint or "restore the file that was saved"
        raise refusal(folder / CONFIG_FILE, escape(message), hint=remedy) from None


def unpacked(file: TensorFile) -> TensorFile:
    """Return a file's tensors with the numbers in the place of packed codes."""
    from quanta_compiler.peft.rounding import ENDS, FORM, unpack

    forms = {key.removesuffix(FORM) for key in file.shapes if key.endswith(FORM)}
    parts = {key + behind for key in forms for behind in (ENDS, FORM)}
    shapes = {key: shape for key, shape in file.shapes.items() if key not in parts}

    def read(key: str) -> torch.Tensor:
        if key not in forms:
            return file.read(key)
        return unpack({part: file.read(key + part) for part in ("", ENDS, FORM) if key + part in file.shapes})

    shapes |= {key: tuple(file.read(key + FORM).reshape(-1).tolist()[2:]) for key in forms & shapes.keys()}
    return TensorFile(file.name, shapes, read)


def _circuit_update(config: Any, file: TensorFile, layer: str, parts: Mapping[str, torch.Tensor]) -> CircuitUpdate:
    """Return the update of one layer; raise ValueError where its tensors do not fit its circuit."""
    from quanta_compiler.peft.resolved import resolve

    features = parts.get("features")
    if features is None or features.shape != (2,):
        raise ValueError("`quanta_circuit_features` is missing, or not [in_features, out_features]")
    circuit, residual = resolve(config, layer, *map(int, features.tolist()))
    parts = {**parts, **_shared(circuit, file, layer)}
    has_copy = residual in ("frozen_copy", "folded")
    frozen = _checked(circuit.shapes, parts, "frozen", circuit.shapes if has_copy else circuit.fixed)
    # Adapters saved in format 1 hold T, those of today the difference; T is composed in float32, as layers do it.
    group = "gates" if residual == "none" or any(part.startswith("gates.") for part in parts) else "delta"
    own = _checked(circuit.shapes, parts, group, circuit.trained)
    is_identity = residual == "identity"
    if is_identity:
        own = circuit.from_identity({name: wide(tensor) for name, tensor in own.items()})
    elif group == "delta":
        own = {name: wide(frozen[name]) + wide(tensor) for name, tensor in own.items()}
    return CircuitUpdate(circuit, {**frozen, **own}, frozen if has_copy else None, float(config.scale), is_identity)


def _shared(circuit: FittedCircuit, file: TensorFile, layer: str) -> dict[str, torch.Tensor]:
    """Return the tensors that a layer has together with others, by part."""
    saved = {match["key"]: key for key in file.shapes if (match := _SHARED.fullmatch(key))}
    called = {f"{part}.{name}": f"{part}-{key}" for name, key in circuit.together(layer).items() for part in _PARTS}
    return {part: file.read(saved[key]) for part, key in called.items() if key in saved}


def _checked(
    shapes: Mapping[str, tuple[int, ...]], parts: Mapping[str, torch.Tensor], group: str, names: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Return tensors of a group; raise ValueError where one is missing, of another shape, or not finite."""
    checked: dict[str, torch.Tensor] = {}
    for name in names:
        key, shape = f"{group}.{name}", shapes[name]
        tensor = parts.get(key)
        if tensor is None:
            raise ValueError(f"`quanta_circuit_{key}` is missing")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"`quanta_circuit_{key}` is {list(tensor.shape)}, the circuit needs {list(shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"`quanta_circuit_{key}` holds NaN or infinite numbers")
        checked[name] = tensor
    return checked
