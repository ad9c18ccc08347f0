"""The part of an adapted layer that puts W - scale S in the place of the base weight W."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from quanta_compiler.nn import FittedCircuit, whole
from quanta_compiler.peft.bases import obstacle_to_folding
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.folding import FoldedWeight
from quanta_compiler.peft.tensors import held


class FoldingLayer(BaseTunerLayer):
    """What is folded, and when it is folded anew."""

    if TYPE_CHECKING:
        merged_adapters: list[str]
        get_base_layer: Callable[[], Any]
        quanta_circuit_frozen: nn.ModuleDict
        quanta_circuit_plan: dict[str, FittedCircuit]
        quanta_circuit_residual: dict[str, str]
        quanta_circuit_scale: dict[str, float]
        fan_in_fan_out: bool
        _layer_name: str

    def _hold_folds(self) -> None:
        self.quanta_circuit_folded = nn.ModuleDict()
        self._stale_folds: set[str] = set()
        """Adapters to fold again once the base weight is the base weight."""
        self._unsure_folds: set[str] = set()
        """Folded adapters whose sources are to be looked at closely."""
        self._told_of_training = False

    def _refuse_folding(self) -> None:
        """Raise AdapterError where no weight can stand in the place of the base layer."""
        reason = obstacle_to_folding(self)
        if reason is None:
            return
        raise AdapterError(
            f"{self._layer_name}: `residual='folded'` puts a weight in the place of the layer, and {reason}\n"
            "hint: take `frozen_copy`, which never looks at the weight"
        )

    def _fold(self, adapter: str) -> None:
        """Store W - scale S, in the dtype of the weight; later where W holds merged updates now."""
        if self.merged_adapters:
            self._stale_folds.add(adapter)
            return
        self._stale_folds.discard(adapter)
        sources = self._fold_sources(adapter)
        weight = sources[0]
        if any(tensor.is_meta for tensor in sources[1:]) and not weight.is_meta:
            # S is loaded later (`low_cpu_mem_usage`), and this is done then.
            return
        if weight.is_meta:
            self.quanta_circuit_folded[adapter] = FoldedWeight(torch.empty_like(weight), sources)
            return
        fitted, scale = self.quanta_circuit_plan[adapter], self.quanta_circuit_scale[adapter]
        # What inference mode makes could not be trained with.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            folded = weight.detach().clone()
            frozen = held(self.quanta_circuit_frozen, adapter)
            dtype = torch.promote_types(weight.dtype, torch.float32)
            for columns, block in fitted.operator_blocks(frozen, dtype, weight.device):
                self._add(folded, columns, block * -scale)
            self.quanta_circuit_folded[adapter] = FoldedWeight(folded, sources)

    def _fold_again(self, adapter: str) -> None:
        if self.quanta_circuit_residual[adapter] == "folded":
            self._fold(adapter)

    def _fold_sources(self, adapter: str) -> list[torch.Tensor]:
        """Return W, then the tensors of S."""
        return [whole(self.get_base_layer().weight), *held(self.quanta_circuit_frozen, adapter).values()]

    def folded_weight(self, adapter: str) -> torch.Tensor | None:
        """Return W - scale S of a folded adapter, made anew where W or S have changed.

        None where W trains: its copy would give it no gradient; and in compiled code where W has been cast. W and S are
        applied then.
        """
        sources, is_compiling = self._fold_sources(adapter), torch.compiler.is_compiling()
        if sources[0].requires_grad and torch.is_grad_enabled():
            self._warn_of_training()
            return None
        folded: Any = self.quanta_circuit_folded._modules.get(adapter)
        if is_compiling and (folded is None or folded.weight.dtype != sources[0].dtype):
            return None
        if not is_compiling:
            if folded is None or not folded.is_made_of(sources, closely=adapter in self._unsure_folds):
                self._fold(adapter)
                folded = self.quanta_circuit_folded[adapter]
            self._unsure_folds.discard(adapter)
        weight: torch.Tensor = folded.weight
        return weight

    def _warn_of_training(self) -> None:
        if not torch.compiler.is_compiling() and not self._told_of_training:
            self._told_of_training = True
            warnings.warn(
                f"{self._layer_name}: the base weight trains, so nothing is folded into it; W, T and S are applied, as "
                "with `residual='frozen_copy'`",
                stacklevel=2,
            )

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters; what was copied into them meanwhile (as TRL does) is seen by a closer look."""
        super().set_adapter(adapter_names, inference_mode)
        self._unsure_folds = set(self.quanta_circuit_folded)

    def _add(self, weight: torch.Tensor, columns: slice, block: torch.Tensor) -> torch.Tensor:
        """Add a block of an update into a weight in place: computed in the block's dtype, rounded once."""
        part = weight[columns] if self.fan_in_fan_out else weight[:, columns]
        return part.copy_(part.to(block.dtype) + (block if self.fan_in_fan_out else block.T))
