"""How adapters leave a model: merged where every weight can take them, and with nothing of ours left behind."""

import warnings
from typing import Any

from quanta_compiler.peft.bases import check_merging, sharing
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.readers import remove_hooks, tell_of_silent_layers
from quanta_compiler.peft.saved import check_state


class Endings:
    """The part of a tuner that merges, unloads and deletes."""

    model: Any
    peft_config: dict[str, Any]

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge the adapters into the base weights, where all of them can be merged.

        Raises:
            AdapterError: a weight cannot take an update; every such layer is named, and no weight is changed.

        """
        self._check_merging(adapter_names)
        peft: Any = super()
        peft.merge_adapter(adapter_names, safe_merge)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; with the last one, also the hooks on the model."""
        peft: Any = super()
        peft.delete_adapter(adapter_name)
        if not self.peft_config:
            _stop_watching(self.model)

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> Any:
        if merge:
            self._check_merging(kwargs.get("adapter_names"))
        peft: Any = super()
        model = peft._unload_and_optionally_merge(merge, **kwargs)
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


def watch(model: Any) -> None:
    """Have what is loaded checked before any tensor is copied, and the layers that training does not call told of."""
    _stop_watching(model)
    model.register_load_state_dict_pre_hook(check_state)
    model.register_forward_hook(tell_of_silent_layers)


def _stop_watching(model: Any) -> None:
    """Leave no hook of ours on a model."""
    for hooks in (model._load_state_dict_pre_hooks, model._forward_hooks):
        remove_hooks(hooks, check_state, tell_of_silent_layers)
