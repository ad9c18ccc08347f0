"""An adapted layer: the base layer with the circuits of one or more adapters beside it."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.nn import FittedCircuit, wide
from quanta_compiler.peft.bases import computing_device, computing_dtype, layer_features, quantization_of
from quanta_compiler.peft.computed import COPYING
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.dora import KeptNorms, begin_magnitude
from quanta_compiler.peft.folding import FoldingLayer
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.resolved import Resolved
from quanta_compiler.peft.rounding import Rounding
from quanta_compiler.peft.saved import check_layer, check_state, settle_loaded
from quanta_compiler.peft.shared import SHARED, Reach, Shared
from quanta_compiler.peft.tensors import Features, FrozenParameters, Tensors


class QuantaCircuitLayer(FoldingLayer):
    """The state of the adapters on one layer.

    What trains is `quanta_circuit_delta.<adapter>.<tensor>`, the difference D = T - S of the gates (of angles where a
    gate is made of angles), or `quanta_circuit_gates.<adapter>.<tensor>`, T itself where the update has no S.
    `quanta_circuit_magnitude.<adapter>` trains too, under `dora`.
    `quanta_circuit_frozen.<adapter>.<tensor>` are parameters that do not train: the frozen copy S, and what of T is
    fixed. S is saved with the adapter: drawn again from a seed it would be the same only where torch's generator, and
    for `init: orthogonal` LAPACK, compute bit for bit alike, which other devices and versions do not promise; and the
    adapters of the paper's own code bring an S that no seed makes.

    A circuit that begins as the identity needs no copy: S is the identity, gate by gate.

    T = S + D is composed in float32, so that D = 0 is no update whatever it is cast to, a cast of D costs a rounding of
    the update and no more, and weight decay pulls towards the base model.
    """

    adapter_layer_names = (f"{METHOD}_delta", f"{METHOD}_gates", f"{METHOD}_magnitude", SHARED)
    _parts = (
        "frozen features folded dropout scale configured_scale residual placement rounding plan backend computed_in"
    )
    other_param_names = tuple(f"quanta_circuit_{part}" for part in _parts.split())

    was_called = False
    """Whether a forward pass has called the layer; written without being read, so that compiled code needs no guard."""

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        self.quantization_backend = quantization_of(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.quanta_circuit_delta = nn.ModuleDict()
        self.quanta_circuit_gates = nn.ModuleDict()
        self.quanta_circuit_magnitude = nn.ParameterDict()
        self.row_norms: dict[str, KeptNorms] = {}
        """Of W + update, under `dora`: what is kept in evaluation."""
        self.quanta_circuit_frozen = nn.ModuleDict()
        self.quanta_circuit_shared: dict[str, Reach] = {}
        """What the layer has together with others, by adapter; the model holds it."""
        self.quanta_circuit_features = Features()
        self.quanta_circuit_folded = nn.ModuleDict()
        self._stale_folds: set[str] = set()
        """Adapters to fold again once the base weight is the base weight."""
        self.quanta_circuit_dropout = nn.ModuleDict()
        self.quanta_circuit_scale: dict[str, float] = {}
        self.quanta_circuit_residual: dict[str, str] = {}
        self.quanta_circuit_placement: dict[str, str] = {}
        self.quanta_circuit_rounding: dict[str, Rounding | None] = {}
        self.quanta_circuit_plan: dict[str, FittedCircuit] = {}
        self.quanta_circuit_configured_scale: dict[str, float] = {}
        self.quanta_circuit_backend: dict[str, tuple[str, bool]] = {}
        """What computes an adapter's circuits, and whether it keeps only the input for backward."""
        self._layer_name = ""
        self.quanta_circuit_computed_in: dict[str, torch.dtype] = {}
        """The dtype in which an adapter's trained tensors were when they were last whole: FSDP2 may cast them then."""
        self.merged_adapters: list[str] = []
        self.cast_input_dtype_enabled = True
        self._merged_scales: dict[str, float] = {}
        self._describe_base()

    def _describe_base(self) -> None:
        """Note the sizes of the base layer, and whether its weight is stored `[in_features, out_features]`."""
        self.in_features, self.out_features = layer_features(self.get_base_layer())
        self.fan_in_fan_out = isinstance(self.get_base_layer(), Conv1D)

    def watch_loading(self) -> None:
        """Check what is loaded before any tensor is copied, and settle it afterwards."""
        module: Any = self
        module.register_load_state_dict_pre_hook(check_state)
        module.register_load_state_dict_post_hook(settle_loaded)

    def update_layer(
        self,
        adapter_name: str,
        config: QuantaConfig,
        fit: Resolved,
        layer_name: str,
        inference_mode: bool = False,
        *,
        shared: Shared | None = None,
        **kwargs: Any,
    ) -> None:
        """Give the layer an adapter, or give the adapter its initial values again; `shared` is what others have too."""
        self._layer_name = layer_name
        if fit.residual == "folded":
            self._refuse_folding()
        self.quanta_circuit_plan[adapter_name] = fit.fitted
        self.quanta_circuit_residual[adapter_name] = fit.residual
        self.quanta_circuit_placement[adapter_name] = config.placement
        self.quanta_circuit_rounding[adapter_name] = config.rounding
        self.quanta_circuit_scale[adapter_name] = config.scale
        self.quanta_circuit_configured_scale[adapter_name] = config.scale
        self.quanta_circuit_backend[adapter_name] = (config.backend, config.recompute)
        self.quanta_circuit_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.reach_shared(shared, adapter_name, fit.fitted)
        self._set_tensors(adapter_name, config)
        self.row_norms.pop(adapter_name, None)
        if config.dora:
            begin_magnitude(self, adapter_name)
        elif adapter_name in self.quanta_circuit_magnitude:
            del self.quanta_circuit_magnitude[adapter_name]
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _set_tensors(self, adapter: str, config: QuantaConfig) -> None:
        """Make D or T, S and the rest on the base layer's device, in float32 at least."""
        fitted, residual = self.quanta_circuit_plan[adapter], self.quanta_circuit_residual[adapter]
        is_difference = residual == "identity" or (residual in COPYING and config.format != 1)
        part = "delta" if is_difference else "gates"
        names: dict[str, Sequence[str]] = {
            part: fitted.trained,
            "frozen": tuple(fitted.shapes) if residual in COPYING else fitted.fixed,
        }
        reach = self.quanta_circuit_shared.get(adapter)
        if reach is not None:
            names = reach.join(names)
        initial, trained = self._drawn(adapter, config, {name for group in names.values() for name in group})
        device, dtype = self._base_device(), torch.promote_types(self._base_dtype(), torch.float32)
        # PEFT may turn parameters into empty ones as they are registered (`low_cpu_mem_usage`): D is not made of them.
        own = {name: trained[name].to(device, dtype, copy=True) for name in names[part]}
        if is_difference:
            own = {name: tensor.sub_(initial[name].to(device, dtype)) for name, tensor in own.items()}
        frozen = {name: initial[name].to(device, dtype) for name in names["frozen"]}
        if reach is not None:
            own, frozen = reach.store("trained", own), reach.store("frozen", frozen)
        for container in (self.quanta_circuit_delta, self.quanta_circuit_gates):
            if adapter in container:
                del container[adapter]
        holder = nn.ParameterDict({name: nn.Parameter(tensor) for name, tensor in own.items()})
        (self.quanta_circuit_delta if is_difference else self.quanta_circuit_gates)[adapter] = holder
        self.quanta_circuit_frozen[adapter] = FrozenParameters(frozen)
        self.quanta_circuit_features.hold_features(adapter, (self.in_features, self.out_features), device)
        if residual == "folded":
            self._fold(adapter)
        elif adapter in self.quanta_circuit_folded:
            del self.quanta_circuit_folded[adapter]

    def _holder(self, adapter: str) -> Any:
        differences = self.quanta_circuit_delta
        return (differences if adapter in differences else self.quanta_circuit_gates)[adapter]

    def take_difference(self, adapter: str) -> None:
        """Train D = T - S from here on, where an adapter saved in format 1 has brought T.

        The parameters stay the same objects, for an optimizer that holds them already.
        """
        if adapter not in self.quanta_circuit_gates or self.quanta_circuit_residual[adapter] not in COPYING:
            return
        holder, frozen = self._holder(adapter), self.quanta_circuit_frozen[adapter]
        if any(parameter.is_meta for parameter in (*holder.parameters(), *frozen.parameters())):
            return
        for name, parameter in holder.items():
            parameter.data = wide(parameter.data) - wide(frozen.get_parameter(name).data)
        self.quanta_circuit_delta[adapter] = holder
        del self.quanta_circuit_gates[adapter]

    def has_adapter(self, adapter: str) -> bool:
        """Say whether the layer has such an adapter."""
        return adapter in self.quanta_circuit_plan

    def cast_adapter(self, adapter: str) -> None:
        """Round what trains to the base layer's dtype, as `autocast_adapter_dtype=False` asks for."""
        if self.has_adapter(adapter):
            magnitude = [self.quanta_circuit_magnitude[adapter]] if adapter in self.quanta_circuit_magnitude else []
            for parameter in (*self.trained_parameters(adapter), *magnitude):
                parameter.data = parameter.data.to(self._base_dtype())

    def _drawn(self, adapter: str, config: QuantaConfig, names: Collection[str]) -> tuple[Tensors, Tensors]:
        """Return tensors of S and of what trains of T, at least `names`; empty ones for a model on the meta device."""
        fitted, reach = self.quanta_circuit_plan[adapter], self.quanta_circuit_shared.get(adapter)
        if self._base_device().type == "meta":
            empty = {name: torch.empty(shape, device="meta") for name, shape in fitted.shapes.items()}
            return empty, empty
        if reach is None:
            initial = fitted.draw(_seed(f"{config.init_seed}:{self._layer_name}"))
        else:
            # Gate by gate: what layers have together does not depend on what else a layer has.
            seeds = {gate: _seed(f"{config.init_seed}:{whose}") for gate, whose in reach.drawn_by(names)}
            initial = {k: v for gate, seed in seeds.items() for k, v in fitted.draw_gate(gate, seed).items()}
        return initial, initial if config.init_weights else fitted.draw_apart()

    def _base_device(self) -> torch.device:
        base = self.get_base_layer()
        return computing_device(base, self._get_base_layer_device_and_dtype(base)[0])

    def _base_dtype(self) -> torch.dtype:
        """Return the dtype of the base layer; torch's default where its weight holds codes of numbers."""
        return computing_dtype(self._get_base_layer_device_and_dtype(self.get_base_layer())[1])

    def _cast_input_dtype(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Cast x, also where PEFT must not: that is to spare x the rounding, and a circuit has one dtype."""
        return x.to(dtype)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter's tensors to a device, by default that of the base layer.

        PEFT's own rounds them to the base layer's dtype as well, also after loading (`low_cpu_mem_usage`), and S would
        be another one.
        """
        device = self._base_device() if device is None else device
        for part in ("delta", "gates", "frozen", "folded"):
            module = getattr(self, f"{METHOD}_{part}")._modules.get(adapter_name)
            if module and not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
                # What was packed comes back in float32.
                module.to(device, torch.float64 if self._base_dtype() == torch.float64 else None)
        self.move_shared(adapter_name, device)
        for tensors in (self.quanta_circuit_features, self.quanta_circuit_magnitude):
            if adapter_name in tensors and not tensors[adapter_name].is_meta:
                tensors[adapter_name].data = tensors[adapter_name].data.to(device)

    def state_shapes(self, adapter: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the keys and shapes of what the layer saves for an adapter, the adapter's name included."""
        fitted = self.quanta_circuit_plan[adapter]
        for part in ("delta", "gates", "frozen"):
            container = getattr(self, f"{METHOD}_{part}")
            for name in container[adapter]._parameters if adapter in container else ():
                yield f"{METHOD}_{part}.{adapter}.{name}", fitted.shapes[name]
        if adapter in self.quanta_circuit_magnitude:
            yield f"{METHOD}_magnitude.{adapter}", (self.out_features,)
        yield f"{METHOD}_features.{adapter}", (2,)

    def settle(self) -> None:
        """Check adapters whose tensors were assigned past `load_state_dict`, and fold their copies anew."""
        for adapter in sorted(self.quanta_circuit_features.replaced_adapters & set(self.quanta_circuit_plan)):
            check_layer(self, adapter, self._layer_name)
            self.take_difference(adapter)
            self._fold_again(adapter)
        self.quanta_circuit_features.replaced_adapters.clear()

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
                own = self.quanta_circuit_configured_scale[adapter]
                self._set_scale(adapter, own if scale is None else self.quanta_circuit_scale[adapter] / scale)

    def _set_scale(self, adapter: str, scale: float) -> None:
        self.quanta_circuit_scale[adapter] = scale
        self._fold_again(adapter)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
