"""What PEFT's LoRA can do and circuit adapters cannot: refused with what to do in its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from quanta_compiler.peft.errors import AdapterError

NO_PARAMETERS = (
    "`target_parameters` is not supported: circuits go on linear layers, not on bare parameters\n"
    "hint: leave it out and name linear layers in `target_modules`; the experts of a mixture of experts that are "
    "held as tensors of all experts stay as they are"
)


class Refusals:
    """The part of a tuner that answers for what it does not support."""

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
