"""An adapted layer: the base layer with the circuits of one or more adapters beside it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.nn import FittedCircuit
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.saved import check_state

Tensors = dict[str, torch.Tensor]


class QuantaCircuitLayer(BaseTunerLayer):
    """The state of the adapters on one layer.

    `quanta_circuit_gates.<adapter>.<tensor>` are the trained circuit T. `quanta_circuit_frozen.<adapter>.<tensor>` are
    buffers: the frozen copy S where there is one, and what of T does not train. S is saved with the adapter: drawn
    again from a seed it would be the same only where torch's generator, and for `init: orthogonal` LAPACK, compute bit
    for bit alike, which other devices and versions do not promise; and the adapters of the paper's own code bring an S
    that no seed makes.
    """

    adapter_layer_names = (f"{METHOD}_gates",)
    other_param_names = tuple(
        f"{METHOD}_{name}" for name in ("frozen", "features", "folded", "dropout", "scale", "residual", "plan")
    )

    if TYPE_CHECKING:
        # PEFT's own, and so not known to the checker.
        active_adapters: list[str]
        get_base_layer: Callable[[], Any]
        get_base_weight: Callable[[], torch.Tensor]
        set_base_weight: Callable[[torch.Tensor], None]
        _cast_input_dtype: Callable[[torch.Tensor, torch.dtype], torch.Tensor]

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.quanta_circuit_gates = nn.ModuleDict()
        self.quanta_circuit_frozen = nn.ModuleDict()
        self.quanta_circuit_features = BufferDict(persistent=True)
        self.quanta_circuit_folded = nn.ModuleDict()
        self.quanta_circuit_dropout = nn.ModuleDict()
        self.quanta_circuit_scale: dict[str, float] = {}
        self.quanta_circuit_residual: dict[str, str] = {}
        self.quanta_circuit_plan: dict[str, FittedCircuit] = {}
        self._scales: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.cast_input_dtype_enabled = True
        self.in_features, self.out_features = layer_features(self.get_base_layer())
        self.fan_in_fan_out = isinstance(self.get_base_layer(), Conv1D)
        """Whether the base weight is stored `[in_features, out_features]`."""

    def update_layer(
        self,
        adapter_name: str,
        config: QuantaConfig,
        fitted: FittedCircuit,
        layer_name: str,
        inference_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        """Give the layer an adapter, or give the adapter its initial values again."""
        residual = config.residual
        if residual == "auto":
            residual = "none" if fitted.starts_at_zero else "frozen_copy"
        if residual == "folded" and self.quantization_backend is not None:
            name = self.quantization_backend.backend_name
            raise AdapterError(
                f"{layer_name}: `residual='folded'` needs a plain weight, the layer is quantized ({name})\n"
                "hint: take `frozen_copy`, which never looks at the weight"
            )
        self.quanta_circuit_plan[adapter_name] = fitted
        self.quanta_circuit_residual[adapter_name] = residual
        self.quanta_circuit_scale[adapter_name] = self._scales[adapter_name] = config.scale
        self.quanta_circuit_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self._set_tensors(adapter_name, config, f"{layer_name}:{adapter_name}")
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _set_tensors(self, adapter: str, config: QuantaConfig, salt: str) -> None:
        """Make T, S and the rest, on the base layer's device and as precise as its dtype."""
        fitted = self.quanta_circuit_plan[adapter]
        initial, trained = self._drawn(fitted, config, salt)
        gates = {name: nn.Parameter(trained[name].clone()) for name in fitted.trained}
        self.quanta_circuit_gates[adapter] = nn.ParameterDict(gates)
        self.quanta_circuit_frozen[adapter] = BufferDict(persistent=True)
        self.quanta_circuit_features[adapter] = torch.tensor([self.in_features, self.out_features])
        self._move_adapter_to_device_of_base_layer(adapter)
        # S is rounded as T was, but kept in float32 at least: PEFT takes T back to float32 for training, and a T that
        # is loaded must not meet an S that was rounded again. For the same reason it is filled in after the move. The
        # parameters may be on the meta device here (`low_cpu_mem_usage`), S is not.
        dtype, device = self.compute_dtype(adapter), self.get_base_layer_device()
        held = BufferDict(persistent=True)
        for name in fitted.fixed if self.quanta_circuit_residual[adapter] == "none" else fitted.shapes:
            held[name] = initial[name].to(device, dtype).to(torch.promote_types(dtype, torch.float32))
        self.quanta_circuit_frozen[adapter] = held
        if self.quanta_circuit_residual[adapter] == "folded":
            self._fold(adapter)

    def _drawn(self, fitted: FittedCircuit, config: QuantaConfig, salt: str) -> tuple[Tensors, Tensors]:
        """Return all tensors of S and those of T that train; empty ones for a model on the meta device."""
        if self.get_base_layer_device().type == "meta":
            empty = {name: torch.empty(shape, device="meta") for name, shape in fitted.shapes.items()}
            return empty, empty
        seed = int.from_bytes(hashlib.sha256(f"{config.init_seed}:{salt}".encode()).digest()[:7], "big")
        initial = fitted.draw(seed)
        return initial, initial if config.init_weights else fitted.draw_apart(seed + 1)

    def get_base_layer_device(self) -> torch.device:
        """Return the device of the base layer's weight."""
        device, _ = self._get_base_layer_device_and_dtype(self.get_base_layer())
        return device if device is not None else torch.device("cpu")

    def state_shapes(self, adapter: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the keys and shapes of what the layer saves for an adapter, the adapter's name included."""
        fitted = self.quanta_circuit_plan[adapter]
        for part in ("gates", "frozen"):
            for name in _held(getattr(self, f"{METHOD}_{part}"), adapter):
                yield f"{METHOD}_{part}.{adapter}.{name}", fitted.shapes[name]
        yield f"{METHOD}_features.{adapter}", (2,)

    def circuits(self, adapter: str) -> tuple[Tensors, Tensors | None]:
        """Return the tensors of T, and those of S where the update is T - S."""
        trained, frozen = _held(self.quanta_circuit_gates, adapter), _held(self.quanta_circuit_frozen, adapter)
        if self.quanta_circuit_residual[adapter] == "none":
            return {**frozen, **trained}, None
        return {**frozen, **trained}, frozen

    def compute_dtype(self, adapter: str) -> torch.dtype:
        """Return the dtype that the circuits are applied in: that of the trained tensors."""
        tensors = {**_held(self.quanta_circuit_frozen, adapter), **_held(self.quanta_circuit_gates, adapter)}
        return next(reversed(tensors.values())).dtype if tensors else torch.get_default_dtype()

    def delta_blocks(self, adapter: str) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the update W' - W block by block: columns, and `[columns, out_features]`, transposed.

        In float32 or better, without gradient, with at most a few MiB in memory at once.
        """
        trained, frozen = self.circuits(adapter)
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        dtype, device = torch.promote_types(self.compute_dtype(adapter), torch.float32), self.get_base_layer_device()
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            copies = fitted.operator_blocks(frozen, dtype, device) if frozen is not None else None
            for columns, block in fitted.operator_blocks(trained, dtype, device):
                if copies is not None:
                    block = block - next(copies)[1]  # noqa: PLW2901 - T's block is no longer needed
                yield columns, block * scale if scale != 1 else block

    def _fold(self, adapter: str) -> None:
        """Store W - scale S, in the dtype of the weight."""
        weight = self.get_base_layer().weight
        # Nested, and so not among the adapter's tensors that PEFT takes to float32.
        holder = self.quanta_circuit_folded[adapter] = BufferDict(persistent=False)
        if weight.is_meta:
            holder["weight"] = torch.empty_like(weight)
            return
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        folded = weight.detach().clone()
        frozen = self.circuits(adapter)[1]
        assert frozen is not None, "a folded adapter has a frozen copy"
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            dtype = torch.promote_types(weight.dtype, torch.float32)
            for columns, block in fitted.operator_blocks(frozen, dtype, weight.device):
                self._add(folded, columns, block * -scale)
        holder["weight"] = folded

    def _add(self, weight: torch.Tensor, columns: slice, block: torch.Tensor) -> None:
        """Add a block of an update into a weight in place: computed in the block's dtype, rounded once."""
        part = weight[columns] if self.fan_in_fan_out else weight[:, columns]
        part.copy_(part.to(block.dtype) + (block if self.fan_in_fan_out else block.T))

    def set_scale(self, adapter: str, scale: float) -> None:
        """Multiply the adapter's own scale by `scale`."""
        if adapter in self.quanta_circuit_scale:
            self._set_scale(adapter, self._scales[adapter] * scale)

    def scale_layer(self, scale: float) -> None:
        """Multiply the scale of the active adapters."""
        for adapter in self.active_adapters:
            if scale != 1 and adapter in self.quanta_circuit_scale:
                self._set_scale(adapter, self.quanta_circuit_scale[adapter] * scale)

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the scale of the active adapters, or return to that of their configuration."""
        for adapter in self.active_adapters:
            if adapter in self.quanta_circuit_scale:
                before = self.quanta_circuit_scale[adapter]
                self._set_scale(adapter, self._scales[adapter] if scale is None else before / scale)

    def _set_scale(self, adapter: str, scale: float) -> None:
        self.quanta_circuit_scale[adapter] = scale
        if adapter in self.quanta_circuit_folded:
            self._fold(adapter)


class QuantaCircuitLinear(nn.Module, QuantaCircuitLayer):
    """A linear layer, `torch.nn.Linear`, transformers' `Conv1D` or a quantized one, with circuits beside it."""

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: QuantaConfig,
        fitted: FittedCircuit,
        layer_name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        QuantaCircuitLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, fitted, layer_name, **kwargs)
        module: Any = self
        module.register_load_state_dict_pre_hook(check_state)
        module.register_load_state_dict_post_hook(_fold_again)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer and the active adapters: `[..., in_features] -> [..., out_features]`."""
        if self.disable_adapters or self.merged:
            if self.disable_adapters and self.merged:
                self.unmerge()
            result: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return result
        active = [adapter for adapter in self.active_adapters if adapter in self.quanta_circuit_gates]
        folded = next((adapter for adapter in active if adapter in self.quanta_circuit_folded), None)
        result = self._base(x, folded, *args, **kwargs)
        dtype = result.dtype
        for adapter in active:
            result = result + self._update(adapter, x, with_copy=adapter != folded)
        return result.to(dtype)

    def _base(self, x: torch.Tensor, folded: str | None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the base layer, or in its place the weight into which an adapter's frozen copy is folded."""
        if folded is not None:
            weight = _held(self.quanta_circuit_folded, folded)["weight"]
            return nn.functional.linear(x, weight.T if self.fan_in_fan_out else weight, self.get_base_layer().bias)
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        return result

    def _update(self, adapter: str, x: torch.Tensor, with_copy: bool) -> torch.Tensor:
        """Return scale (T x - S x), without S where it is folded into the weight or there is none."""
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        dtype = self.compute_dtype(adapter)
        trained, frozen = self.circuits(adapter)
        x = self.quanta_circuit_dropout[adapter](self._cast_input_dtype(x, dtype))
        update = fitted.apply({name: tensor.to(dtype) for name, tensor in trained.items()}, x)
        if with_copy and frozen is not None:
            # Both are computed alike, so that equal tensors give equal numbers: the difference is zero at the start.
            update = update - fitted.apply({name: tensor.to(dtype) for name, tensor in frozen.items()}, x)
        return update * scale if scale != 1 else update

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters' updates to the base weight; `safe_merge` refuses a result that is not finite.

        The new weight is a second one until it is finished, so that an interruption leaves the layer as it was.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.quanta_circuit_gates:
                self._shift_weight(adapter, 1, safe_merge)
                self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Subtract the merged updates; the weight is what it was, but for rounding."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            adapter = self.merged_adapters[-1]
            if adapter in self.quanta_circuit_gates:
                self._shift_weight(adapter, -1, safe=False)
            self.merged_adapters.pop()

    def _shift_weight(self, adapter: str, sign: int, safe: bool) -> None:
        weight = self.get_base_weight()
        if self.quantization_backend is None:
            weight = weight.clone()
        for columns, block in self.delta_blocks(adapter):
            self._add(weight, columns, block if sign > 0 else -block)
        if safe and not bool(torch.isfinite(weight).all()):
            raise ValueError(
                f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken; nothing was changed"
            )
        self.set_base_weight(weight)

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return the update W' - W of an adapter, shaped as the base weight is.

        Raises:
            KeyError: the layer has no such adapter.

        """
        if adapter not in self.quanta_circuit_gates:
            raise KeyError(f"no adapter {adapter!r} on this layer: there is {', '.join(self.quanta_circuit_gates)}")
        shape = (self.in_features, self.out_features)
        delta = None
        for columns, block in self.delta_blocks(adapter):
            if delta is None:
                delta = block.new_empty(shape if self.fan_in_fan_out else shape[::-1])
            part = delta[columns] if self.fan_in_fan_out else delta[:, columns]
            part.copy_(block if self.fan_in_fan_out else block.T)
        assert delta is not None
        return delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Say that the update is added to the weight, so that a low-rank one can stand for it."""
        return True

    def extra_repr(self) -> str:
        """Name the circuits in `print(model)`."""
        plans = ", ".join(f"{adapter}={plan!r}" for adapter, plan in self.quanta_circuit_plan.items())
        quantized = quantization_extra_repr(self)
        return f"{quantized}, {plans}" if quantized else plans

    def __repr__(self) -> str:
        return "quanta_circuit." + super().__repr__()


def _held(container: nn.ModuleDict, adapter: str) -> Tensors:
    """Return an adapter's tensors by name, of a ParameterDict or a BufferDict."""
    holder: Any = container[adapter]
    return dict(holder.items())


def layer_features(base_layer: nn.Module) -> tuple[int, int]:
    """Return `in_features` and `out_features` of a linear layer."""
    if isinstance(base_layer, Conv1D):
        rows, columns = base_layer.weight.shape
        return int(rows), int(columns)
    sizes = getattr(base_layer, "in_features", None), getattr(base_layer, "out_features", None)
    if sizes[0] is None or sizes[1] is None:
        raise TypeError(f"a layer of type {type(base_layer).__name__} has no in_features and out_features")
    return int(sizes[0]), int(sizes[1])


def _fold_again(module: Any, _: Any) -> None:
    """Fold the frozen copies anew once other ones have been loaded."""
    for adapter in list(module.quanta_circuit_folded):
        module._fold(adapter)
