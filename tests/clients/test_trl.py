"""TRL's trainers: SFT on a 4-bit base, which casts what trains to bfloat16, and DPO from a loaded adapter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from client_models import TARGETS, adapted_layers, applied_deltas, deltas, distance, logits, save_llama, sentence
from commands import quanta
from paper_checkpoints import State, generator, paper_layer
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from quanta_compiler.peft import QuantaConfig

pytestmark = pytest.mark.slow

LAYOUT = (4, 4, 4)
COMMON: dict[str, Any] = {
    "max_length": 24,
    "per_device_train_batch_size": 4,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}
"""Arguments of every trainer; mixed precision off, so that what is compared has one dtype."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the tiny Llama and its tokenizer."""
    return save_llama(tmp_path_factory.mktemp("llama"))


def in_four_bits(folder: Path) -> Any:
    """Return the Llama as QLoRA has it: NF4, quantized twice."""
    options: dict[str, Any] = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **options)
    # For training: where the CPU has instructions for it, bitsandbytes packs the weights of a model in evaluation anew,
    # and has no gradient for them then.
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cpu").train()


def sft_trainer(folder: Path, out: Path, **keys: Any) -> Any:
    """Return TRL's trainer of an adapter beside 4-bit weights; it has cast what trains to bfloat16."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    texts = Dataset.from_dict({"text": [sentence(first, 10) for first in range(28)]})
    arguments = SFTConfig(output_dir=str(out), learning_rate=0.02, max_steps=8, **COMMON)
    config = QuantaConfig(target_modules=TARGETS, **keys)
    trainer = SFTTrainer(in_four_bits(folder), args=arguments, train_dataset=texts, peft_config=config)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.bfloat16}, "TRL has not cast"
    return trainer


@pytest.mark.parametrize("preset", ["quanta", "quantum_peft_full"])
def test_sft_that_has_not_begun_saves_and_reports_no_update(llama: Path, tmp_path: Path, preset: str) -> None:
    trainer = sft_trainer(llama, tmp_path, preset=preset)
    trainer.save_model(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(in_four_bits(llama), str(tmp_path / "adapter")).train()
    for model in (trainer.model, loaded):
        assert len(list(adapted_layers(model))) == 6
        for updates in (deltas(model), applied_deltas(model)):
            assert not any(bool(delta.any()) for delta in updates.values())


@pytest.mark.parametrize("preset", ["quanta", "quantum_peft_full"])
def test_sft_trains_one_update_that_is_applied_reported_saved_and_loaded(
    llama: Path, tmp_path: Path, preset: str
) -> None:
    trainer = sft_trainer(llama, tmp_path, preset=preset)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-2:]) < sum(losses[:2]) - 0.1
    reported = deltas(trainer.model)
    trainer.save_model(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(in_four_bits(llama), str(tmp_path / "adapter")).train()
    # Float32 against an update of some percent of T and S, the difference of which it is.
    assert distance(applied_deltas(trainer.model), reported) < 1e-4
    assert distance(deltas(loaded), reported) < 1e-4
    assert distance(applied_deltas(loaded), reported) < 1e-4


def imported_adapter(folder: Path) -> Path:
    """Return an adapter made of a checkpoint of the paper's code, whose S no seed gives."""
    state: State = {}
    for layer in range(2):
        for target in ("q_proj", "v_proj"):
            name = f"model.layers.{layer}.self_attn.{target}"
            state |= paper_layer(name, LAYOUT, generator(2 * layer + len(state)))
            state[f"{name}.weight"] = torch.zeros(64 if target == "q_proj" else 32, 64)
    save_file(state, folder / "paper.safetensors")
    result = quanta("import", str(folder / "paper.safetensors"), "-o", str(folder / "imported"))
    assert result.exit_code == 0, result.stderr
    return folder / "imported"


def dpo_trainer(llama: Path, adapter: Path, out: Path) -> Any:
    """Return TRL's trainer of a loaded adapter; its reference is a second adapter, a copy of the first."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(adapter), is_trainable=True)
    pairs = {
        "prompt": [sentence(first, 4) for first in range(16)],
        "chosen": [" " + sentence(first + 12, 4) for first in range(16)],
        "rejected": [" " + sentence(first + 12, 4, step=5) for first in range(16)],
    }
    arguments = DPOConfig(output_dir=str(out), learning_rate=0.02, max_steps=6, **COMMON)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    return DPOTrainer(model, args=arguments, train_dataset=Dataset.from_dict(pairs), processing_class=tokenizer)


def test_dpo_begins_where_its_reference_is(llama: Path, tmp_path: Path) -> None:
    trainer = dpo_trainer(llama, imported_adapter(tmp_path), tmp_path)
    model = trainer.model
    before = logits(model)
    with model.disable_adapter():
        assert not torch.allclose(logits(model), before, atol=0.1), "the adapter does next to nothing"
    model.set_adapter("ref")
    assert torch.equal(logits(model), before)
    reference = deltas(model, "ref")
    assert distance(reference, deltas(model)) == 0
    model.set_adapter("default")

    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert log[0]["rewards/chosen"] == log[0]["rewards/rejected"] == 0
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[-1]["rewards/margins"] > log[0]["rewards/margins"]
    assert log[-1]["loss"] < log[0]["loss"]
    assert all(torch.equal(delta, reference[name]) for name, delta in deltas(model, "ref").items())
    assert distance(applied_deltas(model), deltas(model)) < 1e-4
    trainer.save_model(str(tmp_path / "trained"))
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(tmp_path / "trained"))
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-5)
