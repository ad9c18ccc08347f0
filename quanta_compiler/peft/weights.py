"""The weight of a base layer: read as a plain tensor, and written back in the form that the layer has it in."""

from typing import Any

import torch
from torch import nn

from quanta_compiler.nn import is_sharded, whole
from quanta_compiler.peft.bases import computing_device, obstacle_to_reading
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.system.machine import expect_writes


def read_weight(layer: Any, *, copied: bool = True) -> torch.Tensor:
    """Return the base weight as a plain tensor, dequantized, gathered from all processes; a copy, or to look at."""
    base = layer.get_base_layer()
    _unpack(base)
    try:
        reason = None if layer.quantization_backend is not None else obstacle_to_reading(base)
        weight: torch.Tensor = layer.get_base_weight()
    except NotImplementedError as error:
        reason = str(error)
    if reason is not None:
        raise AdapterError(f"{layer._layer_name}: {reason}\nhint: keep the adapter beside it, without `dora`")
    if weight.is_meta and computing_device(base, weight.device).type != "meta":
        raise AdapterError(
            f"{layer._layer_name}: its weight is offloaded\n"
            "hint: merge and unmerge by the model: merge_adapter(), unmerge_adapter(), merge_and_unload()"
        )
    if is_sharded(weight):
        return whole(weight)
    # Dequantizing has made a new tensor already.
    return _copied(weight) if copied and layer.quantization_backend is None else weight


def check_finite(layer: Any, adapter: str, merged: torch.Tensor) -> None:
    """Raise where numbers of a merged weight are not finite, as `safe_merge` asks for, or there are none to look at."""
    if merged.is_meta:
        raise AdapterError(
            f"{layer._layer_name}: its weight is on the meta device, and has no numbers that `safe_merge` could check\n"
            "hint: load the model's weights first, or leave `safe_merge` out"
        )
    if not bool(torch.isfinite(merged).all()):
        raise ValueError(
            f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken; {layer._layer_name} is "
            "without it, and layers before this one are merged\n"
            "hint: model.unmerge_adapter() takes the adapters out of those; after merge_and_unload load the base model "
            "anew"
        )


def _copied(weight: torch.Tensor) -> torch.Tensor:
    if type(weight) not in (torch.Tensor, nn.Parameter) or not weight.is_cpu:
        return weight.clone()
    copy = torch.empty_like(weight)
    expect_writes(copy.data_ptr(), copy.nbytes)
    return copy.copy_(weight)


def _unpack(base: Any) -> None:
    """Bring back the plain form of a 4-bit weight that bitsandbytes has packed for inference, as it does on some CPUs.

    PEFT dequantizes the plain form alone, without noticing.
    """
    if not getattr(getattr(getattr(base, "weight", None), "quant_state", None), "packing_format_for_cpu", False):
        return
    # Asking for the state unpacks the weight (bitsandbytes 0.50), but leaves scales that are no codes turned over.
    base.state_dict()
    state = base.weight.quant_state
    if not state.nested and state.absmax.dim() == 2:
        state.absmax = state.absmax.T.reshape(-1).float()


def write_weight(layer: Any, weight: torch.Tensor) -> None:
    """Store a new base weight: quantized again, or each process's own part of it."""
    own = None if layer.quantization_backend is not None else layer.get_base_weight()
    if own is None or not is_sharded(own):
        base = layer.get_base_layer()
        if own is not None and base.weight.is_inference() and not torch.is_inference_mode_enabled():
            # It was made in inference mode, and would stay what no forward pass outside of it can use.
            base.weight = torch.nn.Parameter(weight, requires_grad=False)
        else:
            layer.set_base_weight(weight)
        return
    from torch.distributed.tensor import distribute_tensor

    # In place: FSDP2 remembers the storage of its shard, and would not see another tensor.
    with torch.no_grad():
        own.copy_(distribute_tensor(weight, own.device_mesh, own.placements))
