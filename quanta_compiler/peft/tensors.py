"""Containers for what an adapted layer holds beside its trained gates."""

from typing import Any

import torch
from torch import nn

from quanta_compiler.nn import is_sharded, whole

Tensors = dict[str, torch.Tensor]


class FrozenParameters(nn.ParameterDict):
    """Parameters that do not train, also where others are assigned (transformers' `load_adapter` makes them train).

    Not buffers: what copies, shards or moves an adapter by its parameters (TRL's reference adapters, FSDP2's loading
    from one process) takes them along.
    """

    frozen = ""
    """What the names of those begin with that do not train."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_fixed = isinstance(value, nn.Parameter) and name.startswith(self.frozen)
        super().__setattr__(name, value.requires_grad_(False) if is_fixed else value)


class Features(FrozenParameters):
    """`in_features` and `out_features` that an adapter was made for, float32 `[2]` by adapter.

    Of a floating dtype, as clients expect of parameters; saved exactly even where a client has rounded or moved them.

    transformers loads adapters by assigning to attributes, past every hook of `load_state_dict`. As every saved layer
    brings its features, `replaced_adapters` tells for which adapters that has happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced_adapters: set[str] = set()
        self._exact: dict[str, tuple[int, int]] = {}

    def hold_features(self, adapter: str, features: tuple[int, int], device: torch.device) -> None:
        """Store the features of an adapter."""
        self._exact[adapter] = features
        self[adapter] = nn.Parameter(torch.tensor(features, dtype=torch.float32, device=device))
        self.replaced_adapters.discard(adapter)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for adapter in self._parameters:
            tensor, exact = destination[prefix + adapter], torch.tensor(self._exact[adapter], dtype=torch.float32)
            if not tensor.is_meta and not is_sharded(tensor) and not torch.equal(tensor.cpu().float(), exact):
                destination[prefix + adapter] = exact

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get("_parameters", {}).get(name)
        super().__setattr__(name, value)
        # FSDP2 assigns as well: its shard, and what it has gathered.
        if before is not None and not is_sharded(before) and not is_sharded(value):
            self.replaced_adapters.add(name)


def held(holder: Any) -> Tensors:
    """Return the tensors of an adapter by name, gathered where FSDP2 has sharded them."""
    return {name: whole(tensor) for name, tensor in holder._parameters.items()}
