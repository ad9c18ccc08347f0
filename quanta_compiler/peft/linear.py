"""The adapted linear layer: its forward pass, and merging into a weight that is plain, quantized or sharded."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from peft.utils import quantization_extra_repr
from torch import nn

from quanta_compiler.nn import is_sharded, whole
from quanta_compiler.peft.bases import check_merging, computing_device, fetch_partitioned, gathered
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.placements import divide, multiply
from quanta_compiler.peft.resolved import Resolved
from quanta_compiler.peft.rounding import described
from quanta_compiler.peft.saved import check_state
from quanta_compiler.system.machine import expect_writes


class QuantaCircuitLinear(nn.Module, QuantaCircuitLayer):
    """A linear layer, `torch.nn.Linear`, transformers' `Conv1D` or a quantized one, with circuits beside it."""

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: QuantaConfig,
        fit: Resolved,
        layer_name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        QuantaCircuitLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self._merged_scales: dict[str, float] = {}
        self.update_layer(adapter_name, config, fit, layer_name, **kwargs)
        module: Any = self
        module.register_load_state_dict_pre_hook(check_state)
        module.register_load_state_dict_post_hook(_settle_loaded)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer and the active adapters: `[..., in_features] -> [..., out_features]`."""
        self.was_called = True
        if self.disable_adapters or self.merged:
            if self.disable_adapters and self.merged:
                self.unmerge()
            result: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return result
        fetch_partitioned(self)
        if self.quanta_circuit_features.replaced_adapters:
            self.settle()
        active = [adapter for adapter in self.active_adapters if self.has_adapter(adapter)]
        if not torch.compiler.is_compiling():
            for adapter in active:
                self.take_difference(adapter)
        folded = self._folded_among(active)
        weight = self.folded_weight(folded) if folded is not None else None
        if weight is None:
            folded = None
        # Each adapter changes what the ones before it have made of the layer, as merging does.
        inputs: dict[str, torch.Tensor] = {}
        for adapter in reversed(active):
            if self.quanta_circuit_placement[adapter] == "input":
                x = self._turned(adapter, x)
            else:
                inputs[adapter] = x
        result = self._apply_base(x, weight, *args, **kwargs)
        dtype = result.dtype
        for adapter, before in reversed(inputs.items()):
            if self.quanta_circuit_placement[adapter] == "parallel":
                result = result + self._update(adapter, before, with_copy=adapter != folded)
            else:
                bias = getattr(self.get_base_layer(), "bias", None)
                result = result + self._update(adapter, result if bias is None else result - bias)
        return result.to(dtype)

    def _folded_among(self, active: list[str]) -> str | None:
        """Return the adapter whose copy may be folded into the weight: only what is beside the layer is before it."""
        for adapter in active:
            if self.quanta_circuit_placement[adapter] != "parallel":
                return None
            if self.quanta_circuit_residual[adapter] == "folded":
                return adapter
        return None

    def _apply_base(self, x: torch.Tensor, folded: torch.Tensor | None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer, or the weight that is folded in its place."""
        if folded is not None:
            weight = folded.T if self.fan_in_fan_out else folded
            return nn.functional.linear(x, weight, self.get_base_layer().bias)
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        return result

    def _turned(self, adapter: str, x: torch.Tensor) -> torch.Tensor:
        """Return x + scale (T x - x), in the dtype of x."""
        is_dropping = self.training and isinstance(self.quanta_circuit_dropout[adapter], nn.Dropout)
        if self.quanta_circuit_scale[adapter] != 1 or is_dropping:
            return (x + self._update(adapter, x)).to(x.dtype)
        circuit = self.circuits(adapter)[0]
        wide = self._cast_input_dtype(x, next(iter(circuit.values())).dtype)
        with torch.autocast(x.device.type, enabled=False):
            turned = self.quanta_circuit_plan[adapter].apply(circuit, wide, *self.quanta_circuit_backend[adapter])
        return turned.to(x.dtype)

    def _update(self, adapter: str, x: torch.Tensor, with_copy: bool = True) -> torch.Tensor:
        """Return scale (T x - S x), without S where it is folded into the weight or there is none.

        Where T begins as the identity, S is the identity.
        """
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        how = self.quanta_circuit_backend[adapter]
        trained, frozen = self.circuits(adapter)
        dtype = next(iter(trained.values())).dtype
        if not (with_copy and frozen is not None and x.is_cuda):
            x = self._cast_input_dtype(x, dtype)  # a GPU makes the difference in float32 from `x` as it is
        x = self.quanta_circuit_dropout[adapter](x)
        if with_copy and frozen is not None:
            # Both are computed alike, so that equal tensors give equal numbers, and the difference is zero at the
            # start. Later it may be smaller than what autocast would round them by, so it has no part in this.
            with torch.autocast(x.device.type, enabled=False):
                update = fitted.apply_difference(trained, frozen, x, *how)
        elif self.quanta_circuit_residual[adapter] == "identity":
            with torch.autocast(x.device.type, enabled=False):
                update = fitted.apply(trained, x, *how) - x
        else:
            update = fitted.apply(trained, x, *how)
        return update * scale if scale != 1 else update

    @gathered(written=True)
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters' updates to the base weight; `safe_merge` refuses a result that is not finite.

        The new weight is a second one until it is finished, so that an interruption leaves the layer as it was.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if self.has_adapter(adapter):
                check_merging({self._layer_name: self})
                scale = self.quanta_circuit_scale[adapter]
                self._change_weight(adapter, scale, safe=safe_merge)
                self._merged_scales[adapter] = scale
                self.merged_adapters.append(adapter)

    @gathered(written=True)
    def unmerge(self) -> None:
        """Take the merged adapters out again; the weight is what it was, but for rounding."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            adapter = self.merged_adapters[-1]
            if self.has_adapter(adapter):
                self._change_weight(adapter, self._merged_scales[adapter], undo=True)
            self.merged_adapters.pop()
        for adapter in sorted(self._stale_folds & set(self.quanta_circuit_folded)):
            self._fold(adapter)

    def _change_weight(self, adapter: str, scale: float, *, safe: bool = False, undo: bool = False) -> None:
        """Add `scale` (T - S) to the base weight or multiply it by the circuit, or undo that; all of it or nothing."""
        weight = read_weight(self)
        if undo and self.quanta_circuit_placement[adapter] != "parallel":
            divide(self._as_matrix(weight), self, adapter, scale)
        else:
            finest = torch.promote_types(self.compute_dtype(adapter), torch.float32)
            for part in self._changed(weight, adapter, -scale if undo else scale):
                if safe and not bool(torch.isfinite(part.to(finest)).all()):
                    raise ValueError(
                        f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken; "
                        "nothing was changed"
                    )
        _write_weight(self, weight)

    def _changed(self, weight: torch.Tensor, adapter: str, scale: float) -> Iterator[torch.Tensor]:
        """Merge an adapter into a weight in place, and yield what is changed, part by part."""
        if self.quanta_circuit_placement[adapter] != "parallel":
            yield from multiply(self._as_matrix(weight), self, adapter, scale)
            return
        for place, block in self.delta_blocks(adapter, scale):
            part = self._add(weight, place, block)
            del block  # before the next is made
            yield part

    def _as_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a view of a weight as `[out_features, in_features]`."""
        return weight.mT if self.fan_in_fan_out else weight

    @gathered()
    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return the update W' - W of an adapter, shaped as the base weight is, in the adapter's dtype.

        Raises:
            KeyError: the layer has no such adapter.

        """
        if not self.has_adapter(adapter):
            raise KeyError(f"no adapter {adapter!r} on this layer: there is {', '.join(self.quanta_circuit_plan)}")
        dtype, scale = self.compute_dtype(adapter), self.quanta_circuit_scale[adapter]
        wide = torch.promote_types(dtype, torch.float32)
        if self.quanta_circuit_placement[adapter] != "parallel":
            weight = read_weight(self).to(wide)
            before = weight.clone()
            for _ in self._changed(weight, adapter, scale):
                pass
            return weight.sub_(before).to(dtype)
        shape = (self.in_features, self.out_features)
        delta = torch.zeros(shape if self.fan_in_fan_out else shape[::-1], dtype=wide, device=self._base_device())
        for _ in self._changed(delta, adapter, scale):
            pass
        return delta.to(dtype)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Say that the update is added to the weight, so that a low-rank one can stand for it."""
        return True

    def extra_repr(self) -> str:
        """Name the circuits in `print(model)`."""
        plans = ", ".join(f"{adapter}={plan!r}" for adapter, plan in self.quanta_circuit_plan.items())
        for adapter, rounding in self.quanta_circuit_rounding.items():
            if rounding is not None:
                own = self._holder(adapter)._parameters
                shapes = [shape for name, shape in self.quanta_circuit_plan[adapter].shapes.items() if name in own]
                plans += f", {adapter}: {described(rounding, shapes)}"
        quantized = quantization_extra_repr(self)
        return f"{quantized}, {plans}" if quantized else plans

    def __repr__(self) -> str:
        return "quanta_circuit." + super().__repr__()


def _settle_loaded(module: Any, _: Any) -> None:
    for adapter in list(module.quanta_circuit_plan):
        module.take_difference(adapter)
        module._fold_again(adapter)


def read_weight(layer: Any) -> torch.Tensor:
    """Return a copy of the base weight as a plain tensor, dequantized, gathered from all processes."""
    base = layer.get_base_layer()
    _unpack(base)
    try:
        weight: torch.Tensor = layer.get_base_weight()
    except NotImplementedError as error:
        raise AdapterError(f"{layer._layer_name}: {error}\nhint: keep the adapter beside it") from error
    if weight.is_meta and computing_device(base, weight.device).type != "meta":
        raise AdapterError(
            f"{layer._layer_name}: its weight is offloaded\n"
            "hint: merge and unmerge by the model: merge_adapter(), unmerge_adapter(), merge_and_unload()"
        )
    if is_sharded(weight):
        return whole(weight)
    # Dequantizing has made a new tensor already.
    return _copied(weight) if layer.quantization_backend is None else weight


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


def _write_weight(layer: Any, weight: torch.Tensor) -> None:
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
