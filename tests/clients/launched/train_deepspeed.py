"""DeepSpeed in bfloat16 on two processes: `torchrun train_deepspeed.py MODEL FOLDER`, one run a ZeRO stage."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
import torch.distributed as dist
from client_models import adapted_layers, deltas, logits, token_batch
from safetensors.torch import save_file
from sharded_runs import DEEPSPEED_RUNS, DeepspeedRun
from transformers import AutoModelForCausalLM


def engine(base: Path, run: DeepspeedRun) -> Any:
    """Return DeepSpeed's engine of an adapted model, all parameters of which it has cast to bfloat16."""
    model, optimizer = run.adapted(AutoModelForCausalLM.from_pretrained(base))
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": run.stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    result, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    assert {parameter.dtype for parameter in result.parameters()} == {torch.bfloat16}, "DeepSpeed has not cast"
    return result


def step(trained: Any) -> float:
    """Train on this process's half of the batch; return the mean loss of both."""
    trained.train()
    tokens = token_batch()[dist.get_rank() :: 2]
    loss = trained(tokens, labels=tokens).loss
    trained.backward(loss)
    trained.step()
    mean = loss.detach().float() / 2
    dist.all_reduce(mean)
    return float(mean)


def check_merged(trained: Any, updates: dict[str, torch.Tensor]) -> None:
    """Merge and take it back with all parameters gathered, as TRL does where it gives the weights to vLLM."""
    with deepspeed.zero.GatheredParameters(list(trained.parameters())):
        before = {name: layer.get_base_layer().weight.float() for name, layer in adapted_layers(trained.module)}
        trained.module.merge_adapter()
        for name, layer in adapted_layers(trained.module):
            merged = (before[name] + updates[name]).to(torch.bfloat16)
            torch.testing.assert_close(layer.get_base_layer().weight.detach(), merged)
        trained.module.unmerge_adapter()


def whole_state(trained: Any, run: DeepspeedRun) -> dict[str, torch.Tensor]:
    """Return the state of the model, as the first process saves it."""
    if run.stage < 3:
        return dict(trained.module.state_dict())
    return dict(trained._zero3_consolidated_16bit_state_dict() or {})


def train(base: Path, run: DeepspeedRun, folder: Path) -> None:
    """Make one run and write what a single process compares with."""
    trained = engine(base, run)
    with trained.module.disable_adapter():
        untouched = logits(trained)
    assert torch.equal(logits(trained), untouched)
    assert not any(bool(delta.any()) for delta in deltas(trained.module).values())
    losses = [step(trained) for _ in range(run.steps)]
    results = {"logits": logits(trained), "base": untouched}
    updates, state = deltas(trained.module), whole_state(trained, run)
    check_merged(trained, updates)
    if dist.get_rank() == 0:
        trained.module.save_pretrained(str(folder / "adapter"), state_dict=state, save_embedding_layers=False)
        save_file({name: tensor.contiguous() for name, tensor in results.items()}, folder / "logits.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in updates.items()}, folder / "deltas.safetensors")
        (folder / "losses.json").write_text(json.dumps(losses))
    trained.destroy()
    dist.barrier()


def main(base: Path, folder: Path) -> None:
    """Make all runs; each folder below `folder` is named after its run."""
    deepspeed.init_distributed("gloo")
    assert dist.get_world_size() == 2, "the launcher started no second process"
    for name, run in DEEPSPEED_RUNS.items():
        (folder / name).mkdir(exist_ok=True)
        train(base, run, folder / name)
    # Not by tidying up: gloo's threads can wait for the interpreter that waits for them (pytorch/pytorch#56297).
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
