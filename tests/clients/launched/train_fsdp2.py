"""accelerate's FSDP2 with RAM-efficient loading on two processes: `torchrun train_fsdp2.py MODEL FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from client_models import deltas, logits, token_batch
from safetensors.torch import save_file
from sharded_runs import FSDP_RUNS, FsdpRun
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM


@dataclass
class Workplace:
    """Where the base model is, and accelerate's object for everything else."""

    base: Path
    accelerator: Any

    def use_plugin(self, run: FsdpRun) -> None:
        """Enter FSDP2 as accelerate does on accelerators; on the CPU it never does by itself, but all of it works."""
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            cpu_ram_efficient_loading=True,
            state_dict_type=run.state_dict_type,
            mixed_precision_policy="bf16" if run.in_bfloat16 else None,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        )
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.accelerator.state._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
        assert self.accelerator.is_fsdp2

    def prepared(self, run: FsdpRun) -> tuple[Any, Any]:
        """Return the sharded model with an adapter, and its optimizer.

        All that counts comes from the first process: the others have a model of zeros, and an adapter of another seed.
        """
        model = AutoModelForCausalLM.from_pretrained(self.base)
        first = self.accelerator.is_main_process
        if not first:
            for parameter in model.parameters():
                parameter.data.zero_()
        prepared: tuple[Any, Any] = self.accelerator.prepare(*run.adapted(model, init_seed=0 if first else 7))
        return prepared


def step(place: Workplace, model: Any, optimizer: Any) -> float:
    """Train on this process's half of the batch; return the mean loss of both."""
    model.train()
    tokens = token_batch()[dist.get_rank() :: 2]
    loss = model(tokens, labels=tokens).loss
    place.accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    mean = loss.detach() / 2
    dist.all_reduce(mean)
    return float(mean)


def reshard(model: Any) -> None:
    """Leave a model as it is between two steps of training: a pass without a gradient keeps what is gathered last."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def base_logits(model: Any) -> torch.Tensor:
    with model.disable_adapter():
        return logits(model)


def whole_deltas(model: Any) -> dict[str, torch.Tensor]:
    """Return the updates of a sharded model, whole."""
    reshard(model)
    return deltas(model)


def check_untrained(model: Any, run: FsdpRun) -> None:
    """An adapter that nobody trained adds nothing: not in a pass, and not in what is reported."""
    # Where S is folded into the weight, T x - S x is computed from a rounded W - S.
    tolerance = 1e-4 if run.residual == "folded" else 0.0
    torch.testing.assert_close(logits(model), base_logits(model), rtol=0, atol=tolerance)
    assert not any(bool(delta.any()) for delta in whole_deltas(model).values())


def check_restored(place: Workplace, model: Any, optimizer: Any, folder: Path) -> None:
    """What accelerate saves in either form brings a model that went on back to where it was."""
    before = logits(model)
    reshard(model)
    place.accelerator.save_state(str(folder))
    for _ in range(3):
        step(place, model, optimizer)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    reshard(model)
    place.accelerator.load_state(str(folder))
    assert torch.equal(logits(model), before)


def merged_logits(model: Any) -> torch.Tensor:
    """Return the logits with the update merged into the sharded weights; between passes, and taken back again."""
    reshard(model)
    model.merge_adapter(safe_merge=True)
    result = logits(model)
    reshard(model)
    model.unmerge_adapter()
    return result


def train(place: Workplace, run: FsdpRun, folder: Path) -> None:
    """Make one run and write what a single process compares with."""
    place.use_plugin(run)
    model, optimizer = place.prepared(run)
    check_untrained(model, run)
    losses = [step(place, model, optimizer) for _ in range(run.steps)]
    check_restored(place, model, optimizer, folder / "state")
    results = {"logits": logits(model), "merged": merged_logits(model), "base": base_logits(model)}
    updates = whole_deltas(model)
    state = place.accelerator.get_state_dict(model)
    if place.accelerator.is_main_process:
        model.save_pretrained(str(folder / "adapter"), state_dict=state, save_embedding_layers=False)
        save_file({name: tensor.contiguous() for name, tensor in results.items()}, folder / "logits.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in updates.items()}, folder / "deltas.safetensors")
        (folder / "losses.json").write_text(json.dumps(losses))
    place.accelerator.free_memory()
    dist.barrier()


def main(base: Path, folder: Path) -> None:
    """Make all runs; each folder below `folder` is named after its run."""
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    place = Workplace(base, Accelerator(cpu=True))
    assert dist.get_world_size() == 2, "the launcher started no second process"
    for name, run in FSDP_RUNS.items():
        (folder / name).mkdir(exist_ok=True)
        train(place, run, folder / name)
    # Not by tidying up: gloo's threads can wait for the interpreter that waits for them (pytorch/pytorch#56297).
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
