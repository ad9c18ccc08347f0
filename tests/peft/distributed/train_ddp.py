"""Data-parallel training with accelerate: `accelerate launch train_ddp.py FOLDER`, one run after the other."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from launched_training import adapted_llama, adapter_config, global_batches, mean_loss, optimizer_of, outputs, write_run


def train(accelerator: Accelerator, folder: Path, residual: str, init_seed: int = 0) -> None:
    """Train on this process's share of every batch, in as many pieces as gradients are accumulated over."""
    adapted = adapted_llama(residual, init_seed)
    # Beside the adapter that trains, as for switching: DDP must not wait for the gradients of this one.
    adapted.add_adapter("idle", adapter_config(residual))
    model, optimizer = accelerator.prepare(adapted, optimizer_of(adapted))
    losses = []
    for batch in global_batches():
        share = batch[accelerator.process_index :: accelerator.num_processes]
        pieces: list[Any] = []
        for piece in share.chunk(accelerator.gradient_accumulation_steps):
            with accelerator.accumulate(model):
                loss = mean_loss(model, piece)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            pieces.append(loss.detach())
        losses.append(accelerator.reduce(sum(pieces) / len(pieces), reduction="mean").item())
    plain = accelerator.unwrap_model(model)
    plain.save_pretrained(
        str(folder),
        is_main_process=accelerator.is_main_process,
        selected_adapters=["default"],
        save_embedding_layers=False,
    )
    if accelerator.is_main_process:
        write_run(folder, losses, outputs(plain))
    accelerator.wait_for_everyone()


def main(folder: Path) -> None:
    """Make all runs; each folder below `folder` is named after its run."""
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2, "the launcher started no second process"
    for residual in ("frozen_copy", "folded", "none", "shared"):
        train(accelerator, folder / residual, residual)
    # DDP makes the second process's T and S those of the first, whatever it has drawn.
    train(accelerator, folder / "seeds_apart", "frozen_copy", init_seed=accelerator.process_index)
    train(accelerator, folder / "seeds_apart_folded", "folded", init_seed=accelerator.process_index)
    accelerator.gradient_accumulation_steps = 2
    train(accelerator, folder / "accumulated", "frozen_copy")
    accelerator.wait_for_everyone()
    # Not by tidying up: gloo's threads can wait for the interpreter that waits for them (pytorch/pytorch#56297).
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
