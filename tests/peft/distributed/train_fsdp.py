"""Fully sharded training (FSDP2): `torchrun train_fsdp.py FOLDER`, one run after the other."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from launched_training import TOLERANCE, adapted_llama, global_batches, mean_loss, optimizer_of, outputs, write_run
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def sharded(model: Any, mesh: DeviceMesh) -> Any:
    """Shard every decoder layer, and what is left as a whole."""
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(folder: Path, residual: str, mesh: DeviceMesh, recompute: bool = False) -> None:
    """Train on this process's share of every batch, save once; load and merge in sharded models what was saved."""
    model = adapted_llama(residual)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    sharded(model, mesh)
    optimizer, losses = optimizer_of(model), []
    for batch in global_batches():
        share = batch[dist.get_rank() :: dist.get_world_size()]
        loss: Any = mean_loss(model, share)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        losses.append(mean.item())
    model.eval()
    logits = outputs(model)
    state = get_model_state_dict(model, options=WHOLE)
    if dist.get_rank() == 0:
        model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
        write_run(folder, losses, logits)
    if not recompute:
        check_resumed(state, residual, mesh, logits)
    dist.barrier()


def check_resumed(state: dict[str, Any], residual: str, mesh: DeviceMesh, logits: torch.Tensor) -> None:
    """Load the whole state, which the first process alone has, into a sharded model with another T and S."""
    other = sharded(adapted_llama(residual, init_seed=7), mesh)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(other, state if dist.get_rank() == 0 else {}, options=options)
    other.eval()
    torch.testing.assert_close(outputs(other), logits, rtol=0, atol=TOLERANCE)
    check_merged(other, logits)


def check_merged(model: Any, logits: torch.Tensor) -> None:
    """Merge into sharded weights and take it back; between passes, as an optimizer finds them."""
    with model.disable_adapter():
        base = outputs(model)
    assert not torch.allclose(base, logits, rtol=0, atol=0.01)
    model.reshard()
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(outputs(model), logits, rtol=0, atol=TOLERANCE)
    model.reshard()
    model.unmerge_adapter()
    torch.testing.assert_close(outputs(model), logits, rtol=0, atol=TOLERANCE)
    with model.disable_adapter():
        torch.testing.assert_close(outputs(model), base, rtol=0, atol=TOLERANCE)


def main(folder: Path) -> None:
    """Make all runs; each folder below `folder` is named after its run."""
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2, "the launcher started no second process"
    mesh = init_device_mesh("cpu", (2,))
    for residual in ("frozen_copy", "folded", "none", "shared", "dora"):
        train(folder / residual, residual, mesh)
    train(folder / "recomputed", "frozen_copy", mesh, recompute=True)
    train(folder / "shared_recomputed", "shared", mesh, recompute=True)
    dist.barrier()
    # Not by tidying up: gloo's threads can wait for the interpreter that waits for them (pytorch/pytorch#56297).
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
