"""An adapted layer: the base layer with the circuits of one or more adapters beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import resolve_quantization_backend
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.nn import FittedCircuit, whole
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.saved import check_layer
from quanta_compiler.peft.tensors import Features, FrozenTensors, Tensors, computes_alone, held, layer_features


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
        f"{METHOD}_{name}"
        for name in (
            *("frozen", "features", "folded", "dropout", "scale", "configured_scale", "residual", "plan"),
            "backend",
        )
    )

    if TYPE_CHECKING:
        # PEFT's own, and so not known to the checker.
        active_adapters: list[str]
        get_base_layer: Callable[[], Any]
        get_base_weight: Callable[[], torch.Tensor]
        set_base_weight: Callable[[torch.Tensor], None]
        _cast_input_dtype: Callable[[torch.Tensor, torch.dtype], torch.Tensor]
        _get_base_layer_device_and_dtype: Callable[[Any], tuple[torch.device | None, torch.dtype | None]]

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.quanta_circuit_gates = nn.ModuleDict()
        self.quanta_circuit_frozen = nn.ModuleDict()
        self.quanta_circuit_features = Features()
        self.quanta_circuit_folded = nn.ModuleDict()
        self.quanta_circuit_dropout = nn.ModuleDict()
        self.quanta_circuit_scale: dict[str, float] = {}
        self.quanta_circuit_residual: dict[str, str] = {}
        self.quanta_circuit_plan: dict[str, FittedCircuit] = {}
        self.quanta_circuit_configured_scale: dict[str, float] = {}
        self.quanta_circuit_backend: dict[str, tuple[str, bool]] = {}
        """What computes an adapter's circuits, and whether it keeps only the input for backward."""
        self._layer_name = ""
        self._stale_folds: set[str] = set()
        """Adapters to fold again once the base weight is the base weight."""
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
        self._layer_name = layer_name
        residual = config.residual_for(layer_name, fitted)
        if residual == "folded":
            self._refuse_folding()
        self.quanta_circuit_plan[adapter_name] = fitted
        self.quanta_circuit_residual[adapter_name] = residual
        self.quanta_circuit_scale[adapter_name] = config.scale
        self.quanta_circuit_configured_scale[adapter_name] = config.scale
        self.quanta_circuit_backend[adapter_name] = (config.backend, config.recompute)
        self.quanta_circuit_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self._set_tensors(adapter_name, config)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _refuse_folding(self) -> None:
        """Raise AdapterError where no weight can stand in the place of the base layer."""
        base = self.get_base_layer()
        if self.quantization_backend is not None:
            reason = f"the layer is quantized ({self.quantization_backend.backend_name})"
        elif base is not self.base_layer:
            reason = "the layer has an adapter of another method"
        elif not computes_alone(base):
            reason = f"a {type(base).__name__} computes more than that"
        else:
            return
        raise AdapterError(
            f"{self._layer_name}: `residual='folded'` puts a weight in the place of the layer, and {reason}\n"
            "hint: take `frozen_copy`, which never looks at the weight"
        )

    def _set_tensors(self, adapter: str, config: QuantaConfig) -> None:
        """Make T, S and the rest on the base layer's device, in float32 at least.

        Never in less, also beside a weight of less: T - S may be smaller than the rounding of either.
        """
        fitted = self.quanta_circuit_plan[adapter]
        initial, trained = self._drawn(fitted, config)
        device, dtype = self._base_device(), torch.promote_types(self._base_dtype(), torch.float32)
        # PEFT may turn parameters into empty ones as they are registered (`low_cpu_mem_usage`): S is not made of them.
        gates = {name: nn.Parameter(trained[name].to(device, dtype, copy=True)) for name in fitted.trained}
        self.quanta_circuit_gates[adapter] = nn.ParameterDict(gates)
        names = fitted.fixed if self.quanta_circuit_residual[adapter] == "none" else tuple(fitted.shapes)
        self.quanta_circuit_frozen[adapter] = FrozenTensors({n: initial[n].to(device, dtype) for n in names})
        self.quanta_circuit_features[adapter] = torch.tensor([self.in_features, self.out_features], device=device)
        if self.quanta_circuit_residual[adapter] == "folded":
            self._fold(adapter)

    def cast_adapter(self, adapter: str) -> None:
        """Round an adapter to the base layer's dtype, as `autocast_adapter_dtype=False` asks for; S as T."""
        if adapter not in self.quanta_circuit_gates:
            return
        dtype = self._base_dtype()
        gates: Any = self.quanta_circuit_gates[adapter]
        gates.to(dtype)
        frozen: Any = self.quanta_circuit_frozen[adapter]
        for name, tensor in frozen._buffers.items():
            frozen._buffers[name] = tensor.to(dtype).to(tensor.dtype)
        if adapter in self.quanta_circuit_folded:
            self._fold(adapter)

    def _drawn(self, fitted: FittedCircuit, config: QuantaConfig) -> tuple[Tensors, Tensors]:
        """Return all tensors of S and those of T that train; empty ones for a model on the meta device."""
        if self._base_device().type == "meta":
            empty = {name: torch.empty(shape, device="meta") for name, shape in fitted.shapes.items()}
            return empty, empty
        seed = int.from_bytes(hashlib.sha256(f"{config.init_seed}:{self._layer_name}".encode()).digest()[:7], "big")
        initial = fitted.draw(seed)
        return initial, initial if config.init_weights else fitted.draw_apart()

    def _base_device(self) -> torch.device:
        device, _ = self._get_base_layer_device_and_dtype(self.get_base_layer())
        return device if device is not None else torch.device("cpu")

    def _base_dtype(self) -> torch.dtype:
        """Return the dtype of the base layer; torch's default where its weight holds codes of numbers."""
        _, dtype = self._get_base_layer_device_and_dtype(self.get_base_layer())
        return dtype if dtype is not None and dtype.is_floating_point else torch.get_default_dtype()

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter's tensors to a device, by default that of the base layer.

        PEFT's own rounds them to the base layer's dtype as well, also after loading (`low_cpu_mem_usage`): a trained
        T - S may be smaller than that rounding.
        """
        device = self._base_device() if device is None else device
        for container in (self.quanta_circuit_gates, self.quanta_circuit_frozen, self.quanta_circuit_folded):
            if adapter_name in container and not any(
                tensor.is_meta for tensor in held(container, adapter_name).values()
            ):
                container[adapter_name].to(device)
        if adapter_name in self.quanta_circuit_features:
            self.quanta_circuit_features[adapter_name] = self.quanta_circuit_features[adapter_name].to(device)

    def state_shapes(self, adapter: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the keys and shapes of what the layer saves for an adapter, the adapter's name included."""
        fitted = self.quanta_circuit_plan[adapter]
        for part in ("gates", "frozen"):
            for name in held(getattr(self, f"{METHOD}_{part}"), adapter):
                yield f"{METHOD}_{part}.{adapter}.{name}", fitted.shapes[name]
        yield f"{METHOD}_features.{adapter}", (2,)

    def circuits(self, adapter: str) -> tuple[Tensors, Tensors | None]:
        """Return the tensors of T, and those of S where the update is T - S."""
        trained, frozen = held(self.quanta_circuit_gates, adapter), held(self.quanta_circuit_frozen, adapter)
        if self.quanta_circuit_residual[adapter] == "none":
            return {**frozen, **trained}, None
        return {**frozen, **trained}, frozen

    def compute_dtype(self, adapter: str) -> torch.dtype:
        """Return the dtype that the circuits are applied in: that of the trained tensors."""
        return next(iter(held(self.quanta_circuit_gates, adapter).values())).dtype

    def delta_blocks(self, adapter: str, scale: float) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the update `scale` (T - S) block by block: columns, and `[columns, out_features]`, transposed.

        In float32 or better, without gradient, with at most a few MiB in memory at once.
        """
        trained, frozen = self.circuits(adapter)
        fitted = self.quanta_circuit_plan[adapter]
        dtype, device = torch.promote_types(self.compute_dtype(adapter), torch.float32), self._base_device()
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            copies = fitted.operator_blocks(frozen, dtype, device) if frozen is not None else None
            for columns, block in fitted.operator_blocks(trained, dtype, device):
                if copies is not None:
                    block = block - next(copies)[1]  # noqa: PLW2901 - T's block is no longer needed
                yield columns, block * scale if scale != 1 else block

    def _fold(self, adapter: str) -> None:
        """Store W - scale S, in the dtype of the weight; later where W holds merged updates now."""
        if self.merged_adapters:
            self._stale_folds.add(adapter)
            return
        self._stale_folds.discard(adapter)
        weight = whole(self.get_base_layer().weight)
        if weight.is_meta:
            self._hold_folded(adapter, torch.empty_like(weight))
            return
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        folded = weight.detach().clone()
        frozen = self.circuits(adapter)[1]
        assert frozen is not None, "a folded adapter has a frozen copy"
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            dtype = torch.promote_types(weight.dtype, torch.float32)
            for columns, block in fitted.operator_blocks(frozen, dtype, weight.device):
                self._add(folded, columns, block * -scale)
        self._hold_folded(adapter, folded)

    def _hold_folded(self, adapter: str, weight: torch.Tensor) -> None:
        # Nested, and so not among the adapter's tensors that PEFT takes to float32; computed again after loading.
        self.quanta_circuit_folded[adapter] = FrozenTensors({"weight": weight}, persistent=False)

    def _add(self, weight: torch.Tensor, columns: slice, block: torch.Tensor) -> torch.Tensor:
        """Add a block of an update into a weight in place: computed in the block's dtype, rounded once."""
        part = weight[columns] if self.fan_in_fan_out else weight[:, columns]
        return part.copy_(part.to(block.dtype) + (block if self.fan_in_fan_out else block.T))

    def settle(self) -> None:
        """Check adapters whose tensors were assigned past `load_state_dict`, and fold their copies anew."""
        for adapter in sorted(self.quanta_circuit_features.replaced & set(self.quanta_circuit_plan)):
            check_layer(self, adapter, self._layer_name)
            if adapter in self.quanta_circuit_folded:
                self._fold(adapter)
        self.quanta_circuit_features.replaced.clear()

    def set_scale(self, adapter: str, scale: float) -> None:
        """Multiply the adapter's own scale by `scale`."""
        if adapter in self.quanta_circuit_scale:
            self._set_scale(adapter, self.quanta_circuit_configured_scale[adapter] * scale)

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
                self._set_scale(
                    adapter, self.quanta_circuit_configured_scale[adapter] if scale is None else before / scale
                )

    def _set_scale(self, adapter: str, scale: float) -> None:
        self.quanta_circuit_scale[adapter] = scale
        if adapter in self.quanta_circuit_folded:
            self._fold(adapter)
