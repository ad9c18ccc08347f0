"""Adapters trained by several processes: the same numbers as one process, saved once, loaded without a launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from launched_training import TOLERANCE, adapted_llama, global_batches, losses_in_one_process, outputs, tiny_llama
from launching import TORCHRUN, launch
from peft import PeftModel
from safetensors.torch import load_file

LAUNCHED = Path(__file__).parent / "distributed"
# accelerate's own `--cpu` starts a single process where there is no mpirun; the programs ask for the CPU themselves.
ACCELERATE = (
    "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port 0"
)
DDP_RUNS = {
    "frozen_copy": "frozen_copy",
    "folded": "folded",
    "none": "none",
    "shared": "shared",
    "seeds_apart": "frozen_copy",
    "seeds_apart_folded": "folded",
    "accumulated": "frozen_copy",
}
"""Names of runs, and what their residual is."""
FSDP_RUNS = {
    "frozen_copy": "frozen_copy",
    "folded": "folded",
    "none": "none",
    "shared": "shared",
    "dora": "dora",
    "recomputed": "frozen_copy",
    "shared_recomputed": "shared",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ddp_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all data-parallel runs; one launch, because starting takes longer than training."""
    folder = tmp_path_factory.mktemp("ddp")
    launch(ACCELERATE, LAUNCHED / "train_ddp.py", [str(folder)])
    return folder


@pytest.fixture(scope="module")
def fsdp_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all fully sharded runs; they also load what they save into sharded models, and merge them."""
    folder = tmp_path_factory.mktemp("fsdp")
    launch(TORCHRUN, LAUNCHED / "train_fsdp.py", [str(folder)])
    return folder


@pytest.mark.parametrize("run", DDP_RUNS)
def test_data_parallel_training_is_that_of_one_process(ddp_folder: Path, run: str) -> None:
    check_run(ddp_folder / run, DDP_RUNS[run])


@pytest.mark.parametrize("run", FSDP_RUNS)
def test_fully_sharded_training_is_that_of_one_process(fsdp_folder: Path, run: str) -> None:
    check_run(fsdp_folder / run, FSDP_RUNS[run])


def check_run(folder: Path, residual: str) -> None:
    """Compare a run's losses, and its saved adapter in this process, with those of training in this process."""
    alone = adapted_llama(residual)
    losses = losses_in_one_process(alone, global_batches())
    assert losses[-1] < losses[0] - 0.1
    assert json.loads((folder / "losses.json").read_text()) == pytest.approx(losses, rel=TOLERANCE)

    saved = {path.name for path in folder.iterdir()} - {"README.md", "losses.json", "logits.safetensors"}
    assert saved == {"adapter_config.json", "adapter_model.safetensors"}
    logits = load_file(folder / "logits.safetensors")["logits"]
    torch.testing.assert_close(logits, outputs(alone), rtol=0, atol=TOLERANCE)
    loaded = PeftModel.from_pretrained(tiny_llama(), str(folder))
    torch.testing.assert_close(outputs(loaded), logits, rtol=0, atol=TOLERANCE)


def test_the_comparison_would_see_gradients_that_are_not_averaged() -> None:
    alone = adapted_llama("frozen_copy")
    losses_in_one_process(alone, global_batches())
    half = adapted_llama("frozen_copy")
    losses_in_one_process(half, global_batches()[:, ::2])
    assert not torch.allclose(outputs(half), outputs(alone), rtol=0, atol=1e3 * TOLERANCE)
    other_seed = adapted_llama("frozen_copy", init_seed=1)
    losses_in_one_process(other_seed, global_batches())
    assert not torch.allclose(outputs(other_seed), outputs(alone), rtol=0, atol=1e3 * TOLERANCE)
