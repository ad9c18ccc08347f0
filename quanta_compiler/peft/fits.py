"""Which circuit a layer gets, or what is wrong with it."""

import warnings
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter
from transformers.pytorch_utils import Conv1D

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.models.fitting import FeaturesError
from quanta_compiler.peft.bases import layer_features, quantization_of
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.errors import Problem
from quanta_compiler.peft.resolved import Resolved, resolve
from quanta_compiler.spec.circuit_spec import CircuitSpec

EXCLUDE = "exclude it: QuantaConfig(exclude_modules=[...])"
_OWN_CIRCUIT = "give such targets a circuit of their own: QuantaConfig(circuit={'q_proj': ..., 'k_proj': ...})"


def fit_layer(config: QuantaConfig, base: nn.Module, name: str, **kwargs: Any) -> Resolved | Problem:
    """Return the circuit for a linear layer, or why there is none; `kwargs` say how the model is quantized.

    Raises:
        ValueError: it is no linear layer.

    """
    backend = quantization_of(base, **kwargs)
    if not isinstance(base, nn.Linear | Conv1D) and getattr(backend, "layer_type", None) != "linear":
        # PEFT's own tests and users look for this type and this beginning.
        raise ValueError(
            f"Target module {base} is not supported: {name} is a {type(base).__name__}. Currently, only "
            "`torch.nn.Linear`, `transformers.pytorch_utils.Conv1D` and quantized linear layers are supported."
        )
    if isinstance(getattr(base, "weight", None), UninitializedParameter):
        text = f"{name}: a {type(base).__name__} has no sizes before its first forward pass"
        return Problem(text, "call the model once on a batch before adapters are put on it")
    try:
        in_features, out_features = layer_features(base)
    except TypeError as error:
        return Problem(f"{name}: {error}", EXCLUDE)
    return _fit(config, name, in_features, out_features)


def fit_experts(config: QuantaConfig, name: str, in_features: int, out_features: int) -> Resolved | Problem:
    """Return the circuit for every expert of a tensor, or why there is none."""
    fit = _fit(config, name, in_features, out_features)
    if isinstance(fit, Resolved) and any(gate.across is not None for gate in fit.fitted.spec.gates):
        text = f"{name}: each expert has parameters of its own, and {fit.fitted.spec.name!r} has gates with `across`"
        return Problem(text, "give experts a circuit of their own, or leave them out: exclude_modules=['experts']")
    return fit


def _fit(config: QuantaConfig, name: str, in_features: int, out_features: int) -> Resolved | Problem:
    layer = f"{name} ({in_features} -> {out_features})"
    try:
        fit = resolve(config, name, in_features, out_features)
    except (SpecError, FeaturesError) as error:
        return Problem(f"{layer}: {error}", getattr(error, "hint", None) or _OWN_CIRCUIT)
    if not fit.fitted.trained:
        text = f"{layer}: circuit {fit.fitted.spec.name!r} has no gate that trains"
        return Problem(text, "leave out `frozen`, or add a gate")
    return fit


_warned: set[CircuitSpec] = set()
"""Each is warned of once: what is wasted, or cannot learn."""


def warn_of_circuit(spec: CircuitSpec) -> None:
    """Warn of what a circuit wastes or cannot learn."""
    if spec in _warned:
        return
    _warned.add(spec)
    for diagnostic in spec.warnings:
        layers = f"layers with {spec.in_features} -> {spec.out_features} features"
        hint = f"\nhint: {diagnostic.hint}" if diagnostic.hint else ""
        warnings.warn(f"circuit {spec.name!r} on {layers}: {diagnostic.message}{hint}", stacklevel=2)
