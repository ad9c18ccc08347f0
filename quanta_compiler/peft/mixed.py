"""Several adapters in one batch: `adapter_names` gives each row its adapter, or `__base__` for none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from quanta_compiler.peft.errors import AdapterError

BASE = "__base__"
"""The name that stands for no adapter."""


@contextmanager
def adapters_by_row(
    tuner: Any, names: Sequence[str], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Iterator[None]:
    """Have the adapted layers of a tuner give every row its adapter, as PEFT's LoRA does.

    `arguments` and `keywords` are those of the forward pass or of `generate`.

    Raises:
        AdapterError: names do not fit the batch, the adapters or what the model does now; nothing has run.

    """
    _check(tuner, names)
    _check_count(names, tuner, arguments, keywords)
    give = partial(_give, list(names), _repeats(tuner.model, keywords))
    # Some of PEFT's models say nothing of the batch here, and pass it to the tuner.
    handles = [tuner.register_forward_pre_hook(partial(_check_count, names), with_kwargs=True)]
    try:
        for module in tuner.modules():
            if isinstance(module, AuxiliaryTrainingWrapper) or hasattr(module, "quanta_circuit_plan"):
                handles.append(module.register_forward_pre_hook(give, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _give(
    names: list[str], repeats: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Give a layer the names of its rows: those of the batch, or each as often as `generate` repeats its row."""
    if any(len(value) == len(names) * repeats for value in _tensors(args, kwargs)[:1]):
        names = [name for name in names for _ in range(repeats)]
    return args, {**kwargs, "adapter_names": names}


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim()]


def _check(tuner: Any, names: Sequence[str]) -> None:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise AdapterError(f"`adapter_names` is a list with one name for every row, got {names!r}")
    unknown = sorted(set(names) - {BASE} - set(tuner.peft_config))
    if unknown:
        raise AdapterError(
            f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}\n"
            f"hint: there is {', '.join(tuner.peft_config)}, and {BASE!r} for rows without an adapter"
        )
    if tuner.training:
        raise AdapterError(
            "Cannot pass `adapter_names` when the model is in training mode.\n"
            "hint: call model.eval(); to train several adapters, train one after the other"
        )
    scaled = sorted(name for name in set(names) - {BASE} if tuner.peft_config[name].dora)
    if scaled:
        raise AdapterError(
            f"Cannot pass `adapter_names` when DoRA is enabled. It is for {', '.join(scaled)}\n"
            "hint: call the model on their rows alone, after model.set_adapter(name)"
        )
    if any(getattr(module, "merged_adapters", None) for module in tuner.modules()):
        raise AdapterError(
            "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
        )


def _check_count(names: Sequence[str], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise AdapterError where no tensor that the model is given has a row for every name."""
    tensors = _tensors(args, kwargs)
    if tensors and not any(len(tensor) == len(names) for tensor in tensors):
        raise wrong_count(names, len(tensors[0]))


def wrong_count(names: Sequence[str], rows: int, layer: str = "") -> AdapterError:
    """Return the error for a count of names that is not that of the rows."""
    where = f" (in {layer})" if layer else ""
    return AdapterError(
        "Length of `adapter_names` should be the same as the number of inputs, but got "
        f"{len(names)} and {rows} respectively{where}.\nhint: give one name for every row of the batch"
    )


def _repeats(model: Any, keywords: dict[str, Any]) -> int:
    """Return how many times `generate` repeats every row, an encoder's aside: by its keywords, or the model's own."""
    said = [
        keywords,
        *(
            vars(config)
            for config in (keywords.get("generation_config"), getattr(model, "generation_config", None))
            if config
        ),
    ]
    counts = [
        next((known[key] for known in said if isinstance(known.get(key), int)), 1)
        for key in ("num_beams", "num_return_sequences")
    ]
    return max(1, *counts)


def rows_by_adapter(layer: Any, names: Sequence[str], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the rows of `x` that each adapter of a layer acts on."""
    if x.dim() < 2 or len(x) != len(names):
        raise wrong_count(names, len(x), layer._layer_name)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if layer.has_adapter(name):
            rows.setdefault(name, []).append(row)
    return {name: torch.tensor(own, device=x.device) for name, own in rows.items()}
