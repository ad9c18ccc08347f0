"""The folded weight W - scale S in the place of the base weight W, and whether both are what they were."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from quanta_compiler.nn import Place, whole
from quanta_compiler.peft.bases import obstacle_to_folding
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.shared import SharingLayer

_SAMPLES = 64


class _Source(NamedTuple):
    """What is remembered of a tensor: which one it was, in which version, and its numbers."""

    identity: int
    version: int
    samples: torch.Tensor
    sums: torch.Tensor


class FoldedWeight(nn.Module):
    """A weight that stands in the place of the base layer's.

    It is a snapshot. Where its sources are other tensors than before, or autograd has counted a change of theirs, the
    sums of their rows and columns say whether the numbers are the same (FSDP2 gathers the same ones anew). A change of
    W that autograd does not count (`weight.data.mul_(2)`) is seen by some of its numbers, and with `closely` by all;
    reading numbers would make other devices than the CPU wait, so there it is seen with `closely` alone. The folded
    weight itself is watched too: once FSDP2 has sent W and S to a process that had others, accelerate puts back the
    buffers of before.
    """

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, sources: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # Computed again after loading.
        self.register_buffer("weight", weight, persistent=False)
        self._sources = [
            _Source(id(tensor), _version(tensor), _samples(tensor).clone(), _sums(tensor))
            for tensor in (*sources, weight)
        ]

    def is_made_of(self, sources: Sequence[torch.Tensor], *, closely: bool) -> bool:
        """Say whether the sources, W first and in the same order, are what they were."""
        for position, (tensor, then) in enumerate(zip((*sources, self.weight), self._sources, strict=True)):
            if tensor.is_meta:
                continue
            if tensor.dtype != then.samples.dtype or tensor.device != then.samples.device:
                return False
            if closely or id(tensor) != then.identity or _version(tensor) != then.version:
                if not torch.equal(_sums(tensor), then.sums):
                    return False
                self._sources[position] = then._replace(identity=id(tensor), version=_version(tensor))
            elif position == 0 and tensor.is_cpu and not torch.equal(_samples(tensor), then.samples):
                return False
        return True


def _version(tensor: Any) -> int:
    # Tensors of inference mode count no versions.
    return -1 if tensor.is_inference() else int(tensor._version)


def _samples(tensor: torch.Tensor) -> torch.Tensor:
    # An odd stride meets all columns of the usual widths.
    step = max(1, tensor.numel() // _SAMPLES) | 1
    flat = tensor.detach() if tensor.is_contiguous() else tensor.detach().reshape(-1)
    return flat.as_strided((flat.numel() // step,), (step,))


def _sums(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sums of the columns and of the rows, in float64."""
    rows = tensor.detach().reshape(tensor.shape[0] if tensor.dim() > 1 else 1, -1)
    return torch.cat([rows.sum(dim, dtype=torch.float64) for dim in (0, 1)])


class FoldingLayer(SharingLayer):
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
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
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
        if not is_compiling:
            if folded is None or not folded.is_made_of(sources, closely=adapter in self._unsure_folds):
                self._fold(adapter)
                folded = self.quanta_circuit_folded[adapter]
            self._unsure_folds.discard(adapter)
        return folded.weight  # type: ignore[no-any-return]

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters; what was copied into them meanwhile (as TRL does) is seen by a closer look."""
        super().set_adapter(adapter_names, inference_mode)
        self._unsure_folds = set(self.quanta_circuit_folded)

    def _add(self, weight: torch.Tensor, place: Place, block: torch.Tensor) -> torch.Tensor:
        """Add a block of an update into a weight in place: computed in the block's dtype, rounded once."""
        part = (weight.T if self.fan_in_fan_out else weight)[place]
        return part.add_(block) if part.dtype == block.dtype else part.copy_(part.to(block.dtype).add_(block))
