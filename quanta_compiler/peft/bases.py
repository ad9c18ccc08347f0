"""What a base layer is: its sizes, its dtype, where it computes, and what stands against changing its weight."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from peft.utils import resolve_quantization_backend
from torch import nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from quanta_compiler.peft.errors import Problem, raise_problems
from quanta_compiler.peft.registration import METHOD

_Method = TypeVar("_Method", bound=Callable[..., Any])
_PLAIN = (nn.Linear.forward, Conv1D.forward)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def layer_features(base: nn.Module) -> tuple[int, int]:
    """Return `in_features` and `out_features` of a linear layer, also of one that DeepSpeed has partitioned."""
    if isinstance(base, Conv1D):
        rows, columns = getattr(base.weight, "ds_shape", base.weight.shape)
        return int(rows), int(columns)
    sizes = getattr(base, "in_features", None), getattr(base, "out_features", None)
    if sizes[0] is None or sizes[1] is None:
        raise TypeError(f"a layer of type {type(base).__name__} has no in_features and out_features")
    return int(sizes[0]), int(sizes[1])


def computing_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype of a weight; torch's default where it stores integers or float8 that others compute with."""
    return dtype if dtype is not None and dtype in FLOATS else torch.get_default_dtype()


def computing_device(base: Any, device: torch.device | None) -> torch.device:
    """Return the device that a layer computes on, where its weight is on `device` or offloaded from there."""
    hook = offloading(base)
    if hook is not None and hook.execution_device is not None:
        return torch.device(hook.execution_device)
    return device if device is not None else torch.device("cpu")


def quantization_of(base: nn.Module, **kwargs: Any) -> Any:
    """Return PEFT's way to a quantized weight, None for a plain one.

    PEFT refuses torchao's tensors where it does not know how the model was quantized. That is needed for merging alone.
    """
    again = kwargs.get("get_apply_tensor_subclass")
    # Anything but None stands for it: a layer that cannot be quantized again is not merged.
    backend = resolve_quantization_backend(base, **{**kwargs, "get_apply_tensor_subclass": again or object})
    if again is None and hasattr(backend, "get_apply_tensor_subclass"):
        backend.supports_merge = False
    return backend


def away(base: Any) -> str | None:
    """Say where the weight of a layer is between its forward passes; None where it is there."""
    if is_partitioned(getattr(base, "weight", None)):
        return "DeepSpeed has partitioned its weight (ZeRO-3)"
    return "its weight is offloaded" if offloading(base) is not None else None


def obstacle_to_folding(layer: Any) -> str | None:
    """Say why no weight can stand in the place of the base layer; None where one can."""
    base = layer.get_base_layer()
    if layer.quantization_backend is not None:
        return f"the layer is quantized ({layer.quantization_backend.backend_name})"
    if base is not layer.base_layer:
        return "the layer has an adapter of another method"
    if type(base).forward not in _PLAIN:
        return f"a {type(base).__name__} computes more than that"
    if reason := away(base):
        return reason
    computed = _computed(base)
    if computed is not None:
        return f"its weight is computed anew in every forward pass ({computed[0]})"
    return None if base.weight.dtype in FLOATS else f"its weight is {_shown(base.weight)}"


def _obstacle_to_merging(layer: Any) -> tuple[str, str] | None:
    """Say why an update cannot be added to the weight of an adapted layer, and what to do first; None where it can."""
    base, backend = layer.get_base_layer(), layer.quantization_backend
    if backend is not None:
        if backend.supports_merge:
            return None
        if hasattr(backend, "get_apply_tensor_subclass"):
            hint = "load it with `from_pretrained(quantization_config=TorchAoConfig(...))`, or "
            return "torchao's `quantize_` has not kept how it quantized the layer", hint
        return f"merging is not available for {backend.backend_name} layers", ""
    computed = _computed(base)
    if computed is not None:
        text = f"its weight is computed anew in every forward pass ({computed[0]}), and the update would be lost"
        return text, f"call `{computed[1]}` first, or "
    weight = base.weight
    # Of a tensor type of its own, other than a shard of FSDP2.
    if type(weight.data) is not torch.Tensor and not hasattr(weight, "full_tensor"):
        return f"its weight is a {type(weight).__name__}, which is written by its own library", ""
    if reason := obstacle_to_reading(base):
        return reason, ""
    if type(base).forward in _PLAIN or not _computes_otherwise(base):
        return None
    text = f"a {type(base).__name__} computes something else than W x + b, and so adding to W is another update"
    return text, ""


def obstacle_to_reading(base: Any) -> str | None:
    """Say why the numbers of a layer's weight, which PEFT does not dequantize, are not W; None where they are."""
    weight = base.weight
    if weight.dtype in FLOATS or (weight.dtype.is_floating_point and type(base).forward in _PLAIN):
        return None
    return f"only a {type(base).__name__} knows what its {_shown(weight)} weight stands for"


def check_merging(layers: Mapping[str, Any]) -> None:
    """Raise AdapterError where the weights of adapted layers, by name, cannot take an update; each is named."""
    problems = [
        Problem(f"{name}: {found[0]}", f"{found[1]}keep the adapter beside it")
        for name, layer in layers.items()
        if (found := _obstacle_to_merging(layer))
    ]
    raise_problems("adapters cannot be merged:", problems)


def _computed(base: Any) -> tuple[str, str] | None:
    """Return what computes the weight of a layer and the call that ends it; None where the weight is stored."""
    if parametrize.is_parametrized(base, "weight"):
        steps = ", ".join(type(step).__name__.lstrip("_") for step in base.parametrizations["weight"])
        return steps, "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
    if not isinstance(getattr(base, "weight", None), torch.Tensor) or "weight" in {**base._parameters, **base._buffers}:
        return None
    for hook in base._forward_pre_hooks.values():
        kind = type(hook).__name__
        if kind in _REMOVED_BY:
            return kind, _REMOVED_BY[kind]
        if getattr(hook, "_tensor_name", None) == "weight":
            return f"pruning, {kind}", "torch.nn.utils.prune.remove(layer, 'weight')"
    return "it is no parameter", "nn.Module.register_parameter"


_REMOVED_BY = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm(layer)",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm(layer)",
}


def _computes_otherwise(base: Any) -> bool:
    """Say whether a layer with a forward of its own returns something else than W x + b for a random row."""
    weight, bias = base.weight, base.bias
    if weight.is_meta or is_partitioned(weight):
        return False
    x = torch.randn(1, layer_features(base)[0], generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        expected = nn.functional.linear(x, weight.T if isinstance(base, Conv1D) else weight, bias)
        try:
            difference = base(x) - expected
        except (TypeError, ValueError, RuntimeError):
            # It takes something else than a row, of which nothing is known here.
            return False
        return bool(difference.norm() > _ROUNDING * expected.norm())


_ROUNDING = 0.02
"""How far apart two ways to multiply in bfloat16 are at most, relative to the product."""


def _shown(weight: torch.Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")


def offloading(base: Any) -> Any:
    """Return accelerate's hook that brings a layer's weight for each forward pass; None where it stays."""
    hook = getattr(base, "_hf_hook", None)
    for part in getattr(hook, "hooks", (hook,)):
        if getattr(part, "offload", False):
            return part
    return None


def sharing(model: nn.Module, layers: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the layers whose weight other modules of the model hold as well, with the names of those."""
    holders: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), []).append(key.rpartition(".")[0])
    found = []
    for name, layer in layers.items():
        inside = {f"{name}.{part}".rstrip(".") for part, _ in layer.named_modules()}
        held = holders.get(id(getattr(layer.get_base_layer(), "weight", None)), [])
        others = [holder for holder in held if holder not in inside]
        if others:
            found.append((name, others))
    return found


def is_partitioned(tensor: object) -> bool:
    """Say whether DeepSpeed (ZeRO-3) has spread a tensor over the processes."""
    return hasattr(tensor, "ds_id")


def fetch_partitioned(layer: Any) -> None:
    """Have DeepSpeed (ZeRO-3) gather what circuits are made of whenever it calls the layer, from now on.

    It gathers the parameters of the modules that it calls, and a container of parameters is never called.
    """
    if not any(is_partitioned(parameter) for parameter in layer.quanta_circuit_features._parameters.values()):
        return
    import deepspeed

    for parameter in _adapters(layer):
        if is_partitioned(parameter) and parameter.ds_status.name != "AVAILABLE":
            deepspeed.zero.register_external_parameter(layer, parameter)
            parameter.all_gather()


def _adapters(layer: Any) -> Iterator[Any]:
    """Yield what the adapters of a layer are made of, and what they have together with those of other layers."""
    yield from (parameter for name, parameter in layer.named_parameters() if name.startswith(f"{METHOD}_"))
    for reach in layer.quanta_circuit_shared.values():
        yield from (tensor for _, tensor, _ in reach.expected())


def gathered(*, written: bool = False) -> Callable[[_Method], _Method]:
    """Wrap a method of an adapted layer: its tensors are whole there, also where DeepSpeed (ZeRO-3) has spread them."""

    def wrap(method: _Method) -> _Method:
        @wraps(method)
        def with_whole_tensors(layer: Any, *args: Any, **kwargs: Any) -> Any:
            # Those that a caller holds gathered, as TRL does where it merges, are whole already.
            held = "_ds_z3_gathered_param_context_depth"
            tensors = {id(one): one for one in (*layer.parameters(), *_adapters(layer))}.values()
            spread = [one for one in tensors if is_partitioned(one) and not getattr(one, held, 0)]
            if not spread:
                return method(layer, *args, **kwargs)
            import deepspeed

            # Every process computes the same; what the first one has written is spread again.
            with deepspeed.zero.GatheredParameters(spread, modifier_rank=0 if written else None):
                return method(layer, *args, **kwargs)

        return cast(_Method, with_whole_tensors)

    return wrap
