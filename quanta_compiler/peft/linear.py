"""The adapted linear layer: its forward pass, and merging into a weight that is plain, quantized or sharded."""

import warnings
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from peft.utils import quantization_extra_repr
from torch import nn

from quanta_compiler.kernels.precision import without_autocast
from quanta_compiler.peft.bases import check_merging, fetch_partitioned, gathered
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.dora import row_factors, scale_rows, scaled_result, unscale_rows
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.mixed import rows_by_adapter
from quanta_compiler.peft.placements import divide, multiply
from quanta_compiler.peft.resolved import Resolved
from quanta_compiler.peft.rounding import described
from quanta_compiler.peft.weights import check_finite, read_weight, write_weight


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
        self._merged_factors: dict[str, torch.Tensor] = {}
        self.update_layer(adapter_name, config, fit, layer_name, **kwargs)
        self.watch_loading()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer and the active adapters: `[..., in_features] -> [..., out_features]`.

        `adapter_names` gives each row of x its adapter in place of the active ones.
        """
        self.was_called = True
        names = kwargs.pop("adapter_names", None)
        if self.disable_adapters or self.merged:
            if self.disable_adapters and self.merged:
                self.unmerge()
            result: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return result
        fetch_partitioned(self)
        if self.quanta_circuit_features.replaced_adapters:
            self.settle()
        if names is not None:
            return self._forward_by_row(names, x, *args, **kwargs)
        active = [adapter for adapter in self.active_adapters if self.has_adapter(adapter)]
        if not torch.compiler.is_compiling():
            for adapter in active:
                self.take_difference(adapter)
        return self._adapted(active, x, *args, **kwargs)

    def _adapted(self, active: list[str], x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer and adapters: each changes what those before it have made of it, as merging does."""
        folded = self._folded_among(active)
        weight = self.folded_weight(folded) if folded is not None else None
        inputs: dict[str, torch.Tensor] = {}
        for adapter in reversed(active):
            if self.quanta_circuit_placement[adapter] == "input":
                x = self._turned(adapter, x)
            else:
                inputs[adapter] = x
        result = self._apply_base(x, weight, *args, **kwargs)
        dtype = result.dtype
        for adapter, before in reversed(inputs.items()):
            with_copy = weight is None or adapter != folded
            if adapter in self.quanta_circuit_magnitude:
                earlier = partial(self._adapted, active[: active.index(adapter)])
                result = scaled_result(self, adapter, before, result, earlier=earlier, with_copy=with_copy)
            else:
                result = self._changed_result(adapter, before, result, with_copy)
        return result.to(dtype)

    def requires_grad_(self, requires_grad: bool = True) -> "QuantaCircuitLinear":
        """Let parameters train or not, also those that other layers have too."""
        for reach in self.quanta_circuit_shared.values():
            for parameter in reach.parameters():
                parameter.requires_grad_(requires_grad)
        super().requires_grad_(requires_grad)
        return self

    def _forward_by_row(self, names: list[str], x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer to all rows, and to each row the adapter that it names."""
        rows = rows_by_adapter(self, names, x)
        for adapter, own in rows.items():
            if self.quanta_circuit_placement[adapter] == "input":
                x = x.index_copy(0, own, self._turned(adapter, x[own]))
        result = self._apply_base(x, None, *args, **kwargs)
        for adapter, own in rows.items():
            if self.quanta_circuit_placement[adapter] != "input":
                changed = self._changed_result(adapter, x[own], result[own])
                result = result.index_copy(0, own, changed.to(result.dtype))
        return result

    def _changed_result(
        self, adapter: str, x: torch.Tensor, result: torch.Tensor, with_copy: bool = True
    ) -> torch.Tensor:
        """Return what an adapter beside or behind the layer makes of the layer's result for x."""
        if self.quanta_circuit_placement[adapter] == "parallel":
            return result + self._update(adapter, x, with_copy)
        return result + self._update(adapter, self.without_bias(result))

    def without_bias(self, result: torch.Tensor) -> torch.Tensor:
        """Return W x of W x + b."""
        bias = getattr(self.get_base_layer(), "bias", None)
        # It may be stored in float8.
        return result if bias is None else result - bias.to(result.dtype)

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
        with without_autocast(x.device):
            turned = self.quanta_circuit_plan[adapter].apply(circuit, wide, *self.quanta_circuit_backend[adapter])
        return turned.to(x.dtype)

    def _update(self, adapter: str, x: torch.Tensor, with_copy: bool = True, is_dropped: bool = False) -> torch.Tensor:
        """Return scale (T x - S x), without S where it is folded into the weight or there is none.

        Where T begins as the identity, S is the identity. `is_dropped`: numbers of x have been dropped already.
        """
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        how = self.quanta_circuit_backend[adapter]
        trained, frozen = self.circuits(adapter)
        dtype = next(iter(trained.values())).dtype
        if not (with_copy and frozen is not None and x.is_cuda):
            x = self._cast_input_dtype(x, dtype)  # a GPU makes the difference in float32 from `x` as it is
        if not is_dropped:
            x = self.quanta_circuit_dropout[adapter](x)
        if with_copy and frozen is not None:
            # Both are computed alike, so that equal tensors give equal numbers, and the difference is zero at the
            # start. Later it may be smaller than what autocast would round them by, so it has no part in this.
            with without_autocast(x.device):
                update = fitted.apply_difference(trained, frozen, x, *how)
        elif self.quanta_circuit_residual[adapter] == "identity":
            with without_autocast(x.device):
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
                self._change_weight(adapter, safe=safe_merge)
                self._merged_scales[adapter] = self.quanta_circuit_scale[adapter]
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
                self._change_weight(adapter, undo=True)
            self.merged_adapters.pop()
        for adapter in sorted(self._stale_folds & set(self.quanta_circuit_folded)):
            self._fold(adapter)

    def _change_weight(self, adapter: str, *, safe: bool = False, undo: bool = False) -> None:
        """Merge an adapter into the base weight, or undo that; all of it or nothing."""
        weight = read_weight(self)
        if undo:
            self._undo(weight, adapter)
        else:
            finest = torch.promote_types(self.compute_dtype(adapter), torch.float32)
            for part in self._changed(weight, adapter, self.quanta_circuit_scale[adapter]):
                if safe:
                    check_finite(self, adapter, part.to(finest))
        write_weight(self, weight)

    def _changed(self, weight: torch.Tensor, adapter: str, scale: float) -> Iterator[torch.Tensor]:
        """Merge an adapter into a weight in place, and yield what is changed, part by part."""
        if self.quanta_circuit_placement[adapter] != "parallel":
            yield from multiply(self._as_matrix(weight), self, adapter, scale)
        elif adapter in self.quanta_circuit_magnitude:
            factors = self._merged_factors[adapter] = row_factors(self, adapter)
            yield from scale_rows(self._as_matrix(weight), self, adapter, scale, factors)
        else:
            for place, block in self.delta_blocks(adapter, scale):
                part = self._add(weight, place, block)
                del block  # before the next is made
                yield part

    def _undo(self, weight: torch.Tensor, adapter: str) -> None:
        """Take a merged adapter out of a weight in place."""
        scale = self._merged_scales[adapter]
        if self.quanta_circuit_placement[adapter] != "parallel":
            divide(self._as_matrix(weight), self, adapter, scale)
        elif adapter in self.quanta_circuit_magnitude:
            unscale_rows(self._as_matrix(weight), self, adapter, scale, self._merged_factors[adapter])
        else:
            for place, block in self.delta_blocks(adapter, -scale):
                self._add(weight, place, block)
                del block  # before the next is made

    def unmerged_weight(self) -> torch.Tensor:
        """Return the base weight without the adapters that are merged into it, as a plain tensor to look at."""
        weight = read_weight(self, copied=bool(self.merged_adapters))
        for adapter in reversed(self.merged_adapters):
            if self.has_adapter(adapter):
                self._undo(weight, adapter)
        return weight

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
        if self.quanta_circuit_placement[adapter] != "parallel" or adapter in self.quanta_circuit_magnitude:
            before = self.unmerged_weight().to(wide)
        else:
            # What is added does not depend on the weight.
            shape = (self.in_features, self.out_features)
            before = torch.zeros(shape if self.fan_in_fan_out else shape[::-1], dtype=wide, device=self._base_device())
        weight = before.clone()
        deque(self._changed(weight, adapter, scale), maxlen=0)
        return weight.sub_(before).to(dtype)

    def train(self, mode: bool = True) -> "QuantaCircuitLinear":
        """Choose training or evaluation, and forget the norms that evaluation has kept."""
        self.row_norms.clear()
        return super().train(mode)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Say that the update is added to the weight, so that a low-rank one can stand for it."""
        return True

    def extra_repr(self) -> str:
        """Name the circuits in `print(model)`."""
        plans = ", ".join(f"{adapter}={plan!r}" for adapter, plan in self.quanta_circuit_plan.items())
        plans += described(self)
        quantized = quantization_extra_repr(self)
        return f"{quantized}, {plans}" if quantized else plans

    def __repr__(self) -> str:
        return "quanta_circuit." + super().__repr__()
