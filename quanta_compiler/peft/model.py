"""The tuner: finds the circuit for every target, replaces all targets or none, and leaves nothing of ours behind."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, get_quantization_kwargs
from peft.utils.integrations import init_empty_weights
from torch import nn

from quanta_compiler.peft.bases import check_merging, sharing
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.coverage import coverage, module_names, shown
from quanta_compiler.peft.errors import AdapterError, Problem, raise_problems
from quanta_compiler.peft.expert_tensors import ExpertTensor, asked_tensors, choose_experts, expert_tensors
from quanta_compiler.peft.experts import QuantaCircuitExperts, adapter_of, obstacles_to_experts
from quanta_compiler.peft.fits import EXCLUDE, fit_experts, fit_layer, warn_of_circuit
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.linear import QuantaCircuitLinear
from quanta_compiler.peft.mixed import adapters_by_row
from quanta_compiler.peft.readers import reader_of, remove_hooks, tell_of_silent_layers
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.resolved import FORMAT, Resolved, record
from quanta_compiler.peft.saved import as_differences, check_state, pack_trained, readable, warn_of_nothing_saved
from quanta_compiler.peft.shared import SHARED, conflict, shared_for, shared_of, unshared
from quanta_compiler.peft.snapshot import snapshot
from quanta_compiler.peft.weighted import add_weighted_adapter


class QuantaCircuitModel(BaseTuner):
    """A model with circuits on its target modules; made by `peft.get_peft_model`."""

    prefix: str = f"{METHOD}_"
    tuner_layer_cls = QuantaCircuitLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._misfits: list[Problem] = []
        self._fits: dict[str, Resolved] = {}
        self._together: dict[str, tuple[str, Any]] = {}
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
        names = [*module_names(model), *(tensor.name for tensor in expert_tensors(model))]
        undo = snapshot(model, config)
        self._misfits, self._fits, self._together = [], {}, {}
        shared = shared_of(model)
        if shared is not None:
            shared.drawn.clear()
        try:
            if is_new:
                choose_experts(model, config)
            with warnings.catch_warnings():
                if config.target_parameters:
                    # Names that mean experts alone are no mistake.
                    warnings.filterwarnings("ignore", message="target_modules=.* but no module was matched")
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
            lonely = unshared((name, fit.fitted.spec) for name, fit in self._fits.items()) if not self._misfits else []
            raise_problems(_DO_NOT_FIT, [*self._misfits, *unmatched, *lonely])
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
        # What layers have together is in none of them.
        saved |= {key: tensor for key, tensor in state_dict.items() if f"{SHARED}.{adapter_name}." in key}
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
        shared = shared_of(self.model)
        if shared is not None and autocast_adapter_dtype:
            shared.widen(adapter_name)

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        """Freeze all but adapters, which PEFT knows by their layers: what these have together stays as they set it."""
        shared = shared_of(model)
        trained = [] if shared is None else [one for one in shared.parameters() if one.requires_grad]
        super()._mark_only_adapters_as_trainable(model)
        for parameter in trained:
            parameter.requires_grad = True

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        is_ours = isinstance(new_module, QuantaCircuitLayer) or isinstance(child, QuantaCircuitExperts)
        if is_ours or getattr(child, "base_layer", None) is new_module:
            # PEFT would copy the layer's weight onto itself, and some quantized layers have none of that name; and
            # move adapters to the device of the weight, which is "meta" while accelerate offloads it.
            setattr(parent, child_name, new_module)
            return
        super()._replace_module(parent, child_name, new_module, child)

    def _prepare_adapter_config(self, peft_config: QuantaConfig, model_config: dict[str, Any]) -> QuantaConfig:
        """Take PEFT's default targets; a type of models without any is no mistake where experts are named."""
        if peft_config.target_parameters and model_config.get("model_type") not in self.target_module_mapping:
            return peft_config
        prepared: QuantaConfig = super()._prepare_adapter_config(peft_config, model_config)
        return prepared

    def _inject_parameters(
        self, peft_config: QuantaConfig, model: nn.Module, adapter_name: str, low_cpu_mem_usage: bool
    ) -> list[str]:
        """Put circuits on the tensors of experts that `target_parameters` names; return their names."""
        tensors = asked_tensors(model, peft_config)
        for tensor in tensors:
            parent, _, child = tensor.path.rpartition(".")
            given = (peft_config, adapter_name, tensor.module, child, model.get_submodule(parent))
            with init_empty_weights() if low_cpu_mem_usage else nullcontext():
                self._create_and_replace(*given, current_key=tensor.name, tensor=tensor)
        return [tensor.name for tensor in tensors]

    def _fit(self, config: QuantaConfig, target: nn.Module, name: str, reader: str | None) -> Resolved | Problem:
        """Return the circuit for a linear layer, or why there is none."""
        if reader is not None:
            return Problem(
                f"{name}: {reader} reads its weight past its forward, an adapter on it would do nothing", EXCLUDE
            )
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        fit = fit_layer(config, base, name, **get_quantization_kwargs(self))
        return fit if isinstance(fit, Problem) else conflict(fit, name, self._together) or fit

    def _create_and_replace(  # noqa: PLR0917 - PEFT's signature
        self,
        peft_config: QuantaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        tensor: ExpertTensor | None = None,
        **optional_kwargs: Any,
    ) -> None:
        if tensor is None:
            fit = self._fit(peft_config, target, current_key, reader_of(parent, target_name))
        else:
            problem = next(obstacles_to_experts(peft_config, tensor), None)
            fit = problem or fit_experts(peft_config, tensor.name, *tensor.features)
        if isinstance(fit, Problem):
            self._misfits.append(fit)
            return
        if not peft_config.was_saved:
            # Nor is a sum of adapters, or one that is saved, a circuit that somebody writes here.
            warn_of_circuit(fit.fitted.spec)
        record(peft_config, current_key, fit.fitted.spec, fit.residual)
        self._fits[current_key] = fit
        given: Any = (adapter_name, peft_config, fit, current_key)
        kwargs = {**get_quantization_kwargs(self), "shared": shared_for(self.model, fit.fitted.spec)}
        if tensor is not None:
            layer: Any = adapter_of(parent, tensor, self.active_adapters)
            layer.take_circuit(*given, **kwargs)
        elif isinstance(target, QuantaCircuitLayer):
            target.update_layer(*given, **kwargs)
            return
        else:
            layer = QuantaCircuitLinear(target, *given, **kwargs)
            self._replace_module(parent, target_name, layer, target)
        if adapter_name not in self.active_adapters:
            # An additional adapter is not trained before it is chosen.
            layer.requires_grad_(False)

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
        if not shared_of(self.model):
            self.model._modules.pop(SHARED, None)
        if not self.peft_config:
            _stop_watching(self.model)

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> Any:
        if merge:
            self._check_merging(kwargs.get("adapter_names"))
        model = super()._unload_and_optionally_merge(merge, **kwargs)
        model._modules.pop(SHARED, None)
        _stop_watching(self.model)
        return model

    def _check_merging(self, adapter_names: list[str] | None) -> None:
        """Raise AdapterError where adapters cannot be merged, and say which weights have other owners."""
        layers = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, QuantaCircuitLinear)
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
        """Give each row of a batch the adapter that `adapter_names` says, and refuse what belongs to LoRA."""
        if kwargs.get("alora_offsets") is not None:
            raise AdapterError(
                "`alora_offsets` belongs to activated LoRA, and circuit adapters act on every token\nhint: leave it out"
            )
        names = kwargs.pop("adapter_names", None)
        with nullcontext() if names is None else adapters_by_row(self, names, args, kwargs):
            yield

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "cat",
        **_: Any,
    ) -> None:
        """Add the weighted sum of adapters as one, where there is a circuit for it: those of one layout and gates.

        Options that only PEFT's other combinations read (`svd_rank`, `density`) are passed over.

        Raises:
            AdapterError: the sum is no circuit, or the combination no sum; every layer is named, nothing is changed.

        """
        add_weighted_adapter(self, adapters, weights, adapter_name, combination_type)


def _stop_watching(model: Any) -> None:
    for hooks in (model._load_state_dict_pre_hooks, model._forward_hooks):
        remove_hooks(hooks, check_state, tell_of_silent_layers)


_DO_NOT_FIT = "circuits do not fit their targets:"
_AWAY = (
    "`residual='none'`: the update is T, and on {} T is not zero at the start, so that the model does not begin as the "
    "base model\nhint: take `residual='auto'`, or a circuit that begins at zero (a gate with `init: zeros`)"
)
