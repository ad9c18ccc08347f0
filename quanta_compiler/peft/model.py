"""The tuner: finds the circuit for every target, replaces all targets or none, and leaves nothing of ours behind."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, get_quantization_kwargs
from torch import nn
from torch.nn.parameter import UninitializedParameter
from transformers.pytorch_utils import Conv1D

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.models.fitting import FeaturesError
from quanta_compiler.nn import FittedCircuit
from quanta_compiler.peft.bases import check_merging, layer_features, quantization_of, sharing
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.coverage import coverage, module_names, shown
from quanta_compiler.peft.errors import AdapterError, Problem, raise_problems
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.linear import QuantaCircuitLinear
from quanta_compiler.peft.readers import reader_of, remove_hooks, tell_of_silent_layers, warn_about_experts
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.resolved import FORMAT, Resolved, record, resolve
from quanta_compiler.peft.saved import as_differences, check_state, pack_trained, readable, warn_of_nothing_saved
from quanta_compiler.spec.circuit_spec import CircuitSpec


class QuantaCircuitModel(BaseTuner):
    """A model with circuits on its target modules; made by `peft.get_peft_model`."""

    prefix: str = f"{METHOD}_"
    tuner_layer_cls = QuantaCircuitLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._misfits: list[Problem] = []
        self._fits: dict[str, Resolved] = {}
        super().__init__(*args, **kwargs)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Replace the targets as PEFT does; where anything fails, the model is as it was.

        Raises:
            AdapterError: circuits do not fit their targets, or reach none; every one is named.

        """
        config = self.peft_config[adapter_name]
        config.check_unchanged()
        # For a saved adapter all of this was said when it was new, and only a part of a model may be there.
        is_new = not config.was_saved and kwargs.get("state_dict") is None
        if is_new:
            warn_about_experts(model, config)
        names = module_names(model)
        undo = _snapshot(model, config)
        self._misfits, self._fits = [], {}
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
            warned = self._check_circuits(config, names, is_new=is_new)
        except BaseException:
            undo()
            raise
        # Its circuits are written out now; what is added with the same configuration is of today's form.
        config.format = FORMAT
        for text in warned:
            warnings.warn(text, stacklevel=2)
        # What is loaded is checked before any tensor is copied, and layers that training does not call are told of.
        _stop_watching(model)
        hooked: Any = model
        hooked.register_load_state_dict_pre_hook(check_state)
        hooked.register_forward_hook(tell_of_silent_layers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; the first time in training, say which adapted layers it did not call."""
        result = super().forward(*args, **kwargs)
        # PEFT calls the model's forward past its hooks.
        tell_of_silent_layers(self.model)
        return result

    def _check_circuits(self, config: QuantaConfig, names: list[str], *, is_new: bool) -> list[str]:
        """Refuse circuits that do not fit, and those of a new adapter that match no module; return what to warn of."""
        unmatched, passed_over = coverage(config.circuit, names, self._fits)
        if not is_new:
            raise_problems(_DO_NOT_FIT, self._misfits)
            return [f"{problem.text}\nhint: {problem.hint}" for problem in unmatched]
        if self._fits or self._misfits:
            raise_problems(_DO_NOT_FIT, [*self._misfits, *unmatched])
        # Where the update is T, and T is not zero, a layer does not begin as its base layer.
        own = {name: fit.fitted for name, fit in self._fits.items() if fit.residual == "none" and config.init_weights}
        away = [name for name, fitted in own.items() if not fitted.starts_at_zero]
        return [*passed_over, *([_AWAY.format(shown(away))] if away else [])]

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: Any,
        adapter_name: str,
        state_dict: dict[str, Any],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Any]:
        """Select what is saved, as PEFT does, and say where that is nothing."""
        saved: dict[str, Any] = super()._get_adapter_state_dict(
            model, config, adapter_name, state_dict, unwanted_adapter_names
        )
        warn_of_nothing_saved(state_dict, saved)
        as_differences(saved)
        if config.rounding is not None:
            pack_trained(saved, config.rounding)
        return saved

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Any]
    ) -> dict[str, Any]:
        given = readable(model, adapter_name, state_dict)
        remapped: dict[str, Any] = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, given)
        return remapped

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Leave adapters in float32, or round them to the dtype of their layers where PEFT must not widen."""
        for module in self.model.modules():
            if isinstance(module, QuantaCircuitLayer) and not autocast_adapter_dtype:
                module.cast_adapter(adapter_name)
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(new_module, QuantaCircuitLayer) or getattr(child, "base_layer", None) is new_module:
            # PEFT would copy the layer's weight onto itself, and some quantized layers have none of that name; and
            # move adapters to the device of the weight, which is "meta" while accelerate offloads it.
            setattr(parent, child_name, new_module)
            return
        super()._replace_module(parent, child_name, new_module, child)

    def _create_and_replace(  # noqa: PLR0917 - PEFT's signature
        self,
        peft_config: QuantaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        reader = reader_of(parent, target_name)
        if reader is not None:
            text = f"{current_key}: {reader} reads its weight past its forward, an adapter on it would do nothing"
            self._misfits.append(Problem(text, _EXCLUDE))
            return
        fit = self._fit(peft_config, base, current_key)
        if isinstance(fit, Problem):
            self._misfits.append(fit)
            return
        _warn(fit.fitted)
        record(peft_config, current_key, fit.fitted.spec, fit.residual)
        self._fits[current_key] = fit
        kwargs = get_quantization_kwargs(self)
        if isinstance(target, QuantaCircuitLayer):
            target.update_layer(adapter_name, peft_config, fit, current_key, **kwargs)
            return
        layer = QuantaCircuitLinear(target, adapter_name, peft_config, fit, current_key, **kwargs)
        if adapter_name not in self.active_adapters:
            # An additional adapter is not trained before it is chosen.
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _fit(self, config: QuantaConfig, base: nn.Module, name: str) -> Resolved | Problem:
        backend = quantization_of(base, **get_quantization_kwargs(self))
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
            return Problem(f"{name}: {error}", _EXCLUDE)
        layer = f"{name} ({in_features} -> {out_features})"
        try:
            fit = resolve(config, name, in_features, out_features)
        except (SpecError, FeaturesError) as error:
            return Problem(f"{layer}: {error}", getattr(error, "hint", None) or _OWN_CIRCUIT)
        if not fit.fitted.trained:
            text = f"{layer}: circuit {fit.fitted.spec.name!r} has no gate that trains"
            return Problem(text, "leave out `frozen`, or add a gate")
        return fit

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge the adapters into the base weights, where all of them can be merged.

        Raises:
            AdapterError: a weight cannot take an update; every such layer is named, and no weight is changed.

        """
        self._check_merging(adapter_names)
        super().merge_adapter(adapter_names, safe_merge)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; with the last one, also the hooks on the model."""
        super().delete_adapter(adapter_name)
        if not self.peft_config:
            _stop_watching(self.model)

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> Any:
        if merge:
            self._check_merging(kwargs.get("adapter_names"))
        model = super()._unload_and_optionally_merge(merge, **kwargs)
        _stop_watching(self.model)
        return model

    def _check_merging(self, adapter_names: list[str] | None) -> None:
        """Raise AdapterError where adapters cannot be merged, and say which weights have other owners."""
        layers = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, QuantaCircuitLayer)
            and any(module.has_adapter(adapter) for adapter in adapter_names or module.active_adapters)
        }
        check_merging(layers)
        for name, others in sharing(self.model, layers):
            warnings.warn(
                f"merging changes {name} and {', '.join(others)}: they share one weight\n"
                "hint: give the layer its own first (layer.weight = torch.nn.Parameter(layer.weight.clone())), or keep "
                "the adapter beside it",
                stacklevel=4,
            )

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Refuse arguments of a forward pass that PEFT would drop, before anything runs."""
        if kwargs.get("adapter_names") is not None:
            raise AdapterError(
                "`adapter_names` is not supported by circuit adapters: one forward pass has the same adapters for all "
                "of its rows\nhint: sort the rows by adapter, and call the model once for each, after "
                "model.set_adapter(name); rows without an adapter go in `with model.disable_adapter():`"
            )
        if kwargs.get("alora_offsets") is not None:
            raise AdapterError(
                "`alora_offsets` belongs to activated LoRA, and circuit adapters act on every token\nhint: leave it out"
            )
        yield

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: the sum of several circuits is no circuit.

        Raises:
            AdapterError: always.

        """
        raise AdapterError(
            "`add_weighted_adapter` is not supported by circuit adapters: a weighted sum of circuits is no circuit\n"
            "hint: activate the adapters together, and their updates are added: model.base_model.set_adapter(['a', "
            "'b']), each weighted by layer.set_scale('a', weight) of the adapted layers; or turn them into LoRAs with "
            "peft.convert_to_lora, and combine those"
        )


def _stop_watching(model: Any) -> None:
    for hooks in (model._load_state_dict_pre_hooks, model._forward_hooks):
        remove_hooks(hooks, check_state, tell_of_silent_layers)


def _snapshot(model: nn.Module, config: QuantaConfig) -> Callable[[], None]:
    """Return a function that gives a model back the modules, tensors and adapters that it has now."""
    resolved = config.resolved
    registries = [(registry, dict(registry)) for module in model.modules() for registry in _registries(module)]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def undo() -> None:
        config.resolved = resolved
        for registry, entries in registries:
            registry.clear()
            registry.update(entries)
        for parameter, requires_grad in trained:
            parameter.requires_grad = requires_grad

    return undo


def _registries(module: Any) -> Iterator[dict[str, Any]]:
    yield from (module._modules, module._parameters, module._buffers)
    if isinstance(module, nn.ParameterDict):
        yield module._keys
    if isinstance(module, QuantaCircuitLayer):
        named = (getattr(module, name) for name in module.other_param_names)
        yield from (registry for registry in named if isinstance(registry, dict))


_DO_NOT_FIT = "circuits do not fit their targets:"
_AWAY = (
    "`residual='none'`: the update is T, and on {} T is not zero at the start, so that the model does not begin as the "
    "base model\nhint: take `residual='auto'`, or a circuit that begins at zero (a gate with `init: zeros`)"
)
_EXCLUDE = "exclude it: QuantaConfig(exclude_modules=[...])"
_OWN_CIRCUIT = "give such targets a circuit of their own: QuantaConfig(circuit={'q_proj': ..., 'k_proj': ...})"
_warned: set[CircuitSpec] = set()
"""Each is warned of once: what is wasted, or cannot learn."""


def _warn(fitted: FittedCircuit) -> None:
    if fitted.spec in _warned:
        return
    _warned.add(fitted.spec)
    for diagnostic in fitted.spec.warnings:
        layers = f"layers with {fitted.in_features} -> {fitted.out_features} features"
        hint = f"\nhint: {diagnostic.hint}" if diagnostic.hint else ""
        warnings.warn(f"circuit {fitted.spec.name!r} on {layers}: {diagnostic.message}{hint}", stacklevel=2)
