"""Adapters that transformers loads, past every hook of PEFT: the layer notices, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, batch, circuit_layers
from peft import PeftModel, get_peft_model
from peft.functional import delete_adapter
from random_circuits import file_of
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from quanta_compiler.peft import AdapterError, QuantaConfig

TOKENS = torch.arange(7)[None]


WEIGHTS = "adapter_model.safetensors"


def llama(folder: Path, hidden: int = 24, dtype: torch.dtype = torch.float32) -> Any:
    """Return a tiny Llama, saved once and loaded from a folder."""
    path = folder / f"base-{hidden}"
    if not path.exists():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32, hidden_size=hidden, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
        )
        LlamaForCausalLM(config).save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def saved_llama(folder: Path, dtype: torch.dtype = torch.float32, **keys: Any) -> tuple[Path, torch.Tensor]:
    """Train an adapter on the tiny Llama a little, and save it; return its folder and its logits."""
    config = QuantaConfig(**{"circuit": QUANTA, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **keys})
    model = get_peft_model(llama(folder, dtype=dtype), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(5):
        optimizer.zero_grad()
        model(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(str(folder / "adapter"))
    return folder / "adapter", model(TOKENS).logits


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
def test_transformers_loads_past_every_hook_and_the_layer_notices(residual: str, tmp_path: Path) -> None:
    folder, expected = saved_llama(tmp_path, residual=residual)
    # Another seed, so that the frozen copy that was drawn is not the one that is loaded.
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"init_seed": 0', '"init_seed": 7'))
    model = llama(tmp_path)
    model.load_adapter(str(folder))
    assert torch.allclose(model(TOKENS).logits, expected, atol=1e-6)


def loaded_and_run(model: Any, folder: Path) -> None:
    """Load by transformers, and run: what is wrong is told by the first or by the second, as its version has it."""
    model.load_adapter(str(folder))
    model(TOKENS)


def test_transformers_loads_no_nan_and_no_wrong_base_in_silence(tmp_path: Path) -> None:
    folder, _ = saved_llama(tmp_path)
    with pytest.raises(AdapterError, match="saved for 24 -> 24 features, the model's layer has 32 -> 32"):
        loaded_and_run(llama(tmp_path, hidden=32), folder)
    tensors = load_file(folder / WEIGHTS)
    next(tensor for name, tensor in tensors.items() if "delta" in name).view(-1)[0] = float("nan")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="holds NaN or infinite numbers"):
        loaded_and_run(llama(tmp_path), folder)


def test_a_small_update_beside_bfloat16_survives_transformers_loading(tmp_path: Path) -> None:
    folder, expected = saved_llama(tmp_path, torch.bfloat16)
    model: Any = llama(tmp_path, dtype=torch.bfloat16)
    model.load_adapter(str(folder))
    assert torch.equal(model(TOKENS).logits, expected)
    reference = PeftModel.from_pretrained(llama(tmp_path, dtype=torch.bfloat16), str(folder))
    deltas = [
        [
            layer.get_delta_weight(adapter)
            for layer in circuit_layers(each).values()
            for adapter in layer.active_adapters
        ]
        for each in (model, reference)
    ]
    assert all(torch.equal(*pair) for pair in zip(*deltas, strict=True))


def test_without_autocast_an_adapter_has_the_dtype_of_its_layer_and_comes_back_the_same(tmp_path: Path) -> None:
    x = batch(torch.bfloat16)
    config = QuantaConfig(circuit=file_of("6x4", ["all_pairs"]), target_modules=["q_proj"])
    model: Any = get_peft_model(Mlp(torch.bfloat16), config, autocast_adapter_dtype=False)
    assert {p.dtype for name, p in model.named_parameters() if "delta" in name} == {torch.bfloat16}
    assert torch.equal(model(x), Mlp(torch.bfloat16)(x))
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(Mlp(torch.bfloat16), str(tmp_path))
    assert torch.equal(loaded(x), Mlp(torch.bfloat16)(x))


def test_what_layers_share_is_loaded_by_transformers(tmp_path: Path) -> None:
    gates: list[dict[str, Any]] = [{"axes": [0, 1], "across": "layers"}, {"axes": [0], "kind": "lowrank", "rank": 2}]
    circuit = file_of("6x4", [{**gate, "across": gate.get("across", "all")} for gate in gates])
    folder, expected = saved_llama(tmp_path, circuit=circuit)
    model = llama(tmp_path)
    model.load_adapter(str(folder))
    assert torch.allclose(model(TOKENS).logits, expected, atol=1e-6)
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "quanta" in name)
    tensors = load_file(folder / WEIGHTS)
    tensors["base_model.model.quanta_circuit_shared.delta-g1-6x6-A"].view(-1)[0] = float("nan")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match=r"shared\.delta-g1-6x6-A holds NaN"):
        loaded_and_run(llama(tmp_path), folder)
    delete_adapter(model, "default", "quanta_circuit_")
    assert not any("shared" in name for name, _ in model.named_parameters())
