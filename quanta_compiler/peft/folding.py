"""The folded weight W - scale S in the place of the base weight W, and whether both are what they were."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from quanta_compiler.kernels.precision import without_autocast
from quanta_compiler.nn import Place, whole
from quanta_compiler.peft.bases import obstacle_to_folding
from quanta_compiler.peft.computed import ComputingLayer
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.watch import Watch


class FoldedWeight(nn.Module):
    """A weight that stands in the place of the base layer's: a snapshot, made anew where W or S have changed.

    The folded weight itself is watched too: once FSDP2 has sent W and S to a process that had others, accelerate puts
    back the buffers of before.
    """

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, sources: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # Computed again after loading.
        self.register_buffer("weight", weight, persistent=False)
        self.watch = Watch([*sources, weight], sampled=1)


class FoldingLayer(ComputingLayer):
    """What is folded, and when it is folded anew."""

    _told_of_training = False

    def _refuse_folding(self) -> None:
        if reason := obstacle_to_folding(self):
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
        with torch.inference_mode(False), torch.no_grad(), without_autocast(weight.device):
            folded = weight.detach().clone()
            frozen = self.frozen_tensors(adapter)
            dtype = torch.promote_types(weight.dtype, torch.float32)
            for place, block in fitted.operator_blocks(frozen, dtype, weight.device):
                self._add(folded, place, block * -scale)
            self.quanta_circuit_folded[adapter] = FoldedWeight(folded, sources)

    def _fold_again(self, adapter: str) -> None:
        if self.quanta_circuit_residual[adapter] == "folded":
            self._fold(adapter)

    def _fold_sources(self, adapter: str) -> list[torch.Tensor]:
        """Return W, then the tensors of S."""
        return [whole(self.get_base_layer().weight), *self.frozen_tensors(adapter).values()]

    def folded_weight(self, adapter: str) -> torch.Tensor | None:
        """Return W - scale S of a folded adapter, made anew where W or S have changed.

        None where W trains: its copy would give it no gradient; and in compiled code where W has been cast. W and S are
        applied then.
        """
        sources, is_compiling = self._fold_sources(adapter), torch.compiler.is_compiling()
        if sources[0].requires_grad and torch.is_grad_enabled():
            if not is_compiling and not self._told_of_training:
                self._told_of_training = True
                warnings.warn(
                    f"{self._layer_name}: the base weight trains, so nothing is folded into it; W, T and S are "
                    "applied, as with `residual='frozen_copy'`",
                    stacklevel=2,
                )
            return None
        folded: Any = self.quanta_circuit_folded._modules.get(adapter)
        if is_compiling and (folded is None or folded.weight.dtype != sources[0].dtype):
            return None
        if not is_compiling and (folded is None or not folded.watch.holds([*sources, folded.weight])):
            self._fold(adapter)
            folded = self.quanta_circuit_folded[adapter]
        return folded.weight  # type: ignore[no-any-return]

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters; what was copied into them meanwhile (as TRL does) is seen by a closer look."""
        super().set_adapter(adapter_names, inference_mode)
        for kept in (*self.quanta_circuit_folded.values(), *self.row_norms.values()):
            kept.watch.doubt()

    def _add(self, weight: torch.Tensor, place: Place, block: torch.Tensor) -> torch.Tensor:
        """Add a block of an update into a weight in place: computed in the block's dtype, rounded once."""
        part = (weight.T if self.fan_in_fan_out else weight)[place]
        return part.add_(block) if part.dtype == block.dtype else part.copy_(part.to(block.dtype).add_(block))
