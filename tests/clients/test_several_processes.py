"""accelerate's FSDP2, which loads a model in the first process alone and sends it to the others, and DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from client_models import applied_deltas, deltas, distance, logits, save_llama
from launching import TORCHRUN, launch
from peft import PeftModel
from safetensors.torch import load_file
from sharded_runs import DEEPSPEED_RUNS, FSDP_RUNS
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow

LAUNCHED = Path(__file__).parent / "launched"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the tiny Llama."""
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def fsdp_folder(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all runs of FSDP2; one launch, because starting takes longer than training."""
    folder = tmp_path_factory.mktemp("fsdp2")
    launch(TORCHRUN, LAUNCHED / "train_fsdp2.py", [str(llama), str(folder)])
    return folder


@pytest.fixture(scope="module")
def deepspeed_folder(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all runs of DeepSpeed."""
    folder = tmp_path_factory.mktemp("deepspeed")
    launch(TORCHRUN, LAUNCHED / "train_deepspeed.py", [str(llama), str(folder)])
    return folder


def base(llama: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama, dtype=dtype)


@pytest.mark.parametrize("name", FSDP_RUNS)
def test_fsdp2_loaded_from_one_process_trains_merges_saves_and_loads_one_update(
    llama: Path, fsdp_folder: Path, name: str
) -> None:
    folder, run = fsdp_folder / name, FSDP_RUNS[name]
    alone, losses = run.alone(base(llama))
    assert losses[-1] < losses[0] - 0.1
    trained = json.loads((folder / "losses.json").read_text())
    assert trained == pytest.approx(losses, rel=0.02 if run.in_bfloat16 else 1e-4)

    saved = load_file(folder / "logits.safetensors")
    effect = float((saved["logits"] - saved["base"]).norm())
    # bfloat16 rounds every number of a pass by up to 2^-9 of itself.
    limit = (0.05 if run.in_bfloat16 else 1e-4) * effect
    assert float((saved["merged"] - saved["logits"]).norm()) < limit
    loaded = PeftModel.from_pretrained(base(llama), str(folder / "adapter"))
    assert float((logits(loaded) - saved["logits"]).norm()) < limit
    # What the process of several reports is what it computes with, rounded; what it saves is not.
    rounding = 0.01 if run.in_bfloat16 else 1e-4
    assert distance(load_file(folder / "deltas.safetensors"), deltas(loaded)) < rounding
    assert distance(applied_deltas(loaded), deltas(loaded)) < 1e-4
    if not run.in_bfloat16:
        assert distance(deltas(loaded), deltas(alone)) < 1e-3


@pytest.mark.parametrize("name", DEEPSPEED_RUNS)
def test_deepspeed_trains_and_saves_one_update(llama: Path, deepspeed_folder: Path, name: str) -> None:
    folder, run = deepspeed_folder / name, DEEPSPEED_RUNS[name]
    _, losses = run.alone(base(llama))
    assert losses[-1] < losses[0] - 0.1
    trained = json.loads((folder / "losses.json").read_text())
    assert trained == pytest.approx(losses, rel=0.02)
    saved = load_file(folder / "logits.safetensors")
    loaded = PeftModel.from_pretrained(base(llama, torch.bfloat16), str(folder / "adapter"))
    effect = float((saved["logits"] - saved["base"]).norm())
    assert float((logits(loaded) - saved["logits"]).norm()) < 0.05 * effect
    assert distance(load_file(folder / "deltas.safetensors"), deltas(loaded)) < 1e-4
