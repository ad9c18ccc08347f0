"""Rounded adapters that are damaged, of other shapes, loaded by others, or asked for with numbers that are none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from adapted_models import QUANTA, Mlp, adapted
from packaging.version import Version
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from random_circuits import file_of
from safetensors.torch import load_file, save_file
from test_bits import WEIGHTS, rounded_model
from test_loading_by_transformers import TOKENS, llama, loaded_and_run, saved_llama

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.diagnostics import SpecError
from quanta_compiler.peft import AdapterError, QuantaConfig


def test_a_packed_tensor_that_is_damaged_is_refused_everywhere(tmp_path: Path) -> None:
    rounded_model("frozen_copy", 4).save_pretrained(str(tmp_path))
    tensors = load_file(tmp_path / WEIGHTS)
    key = next(key for key in tensors if key.endswith("q_proj.quanta_circuit_delta.g0"))
    for wrong in (
        {key: tensors[key][..., :-1].contiguous()},
        {f"{key}-ends": tensors[f"{key}-ends"][:-1].contiguous()},
        {f"{key}-form": torch.tensor([4, 20, 1, 1], dtype=torch.int32)},
    ):
        save_file({**tensors, **wrong}, tmp_path / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(AdapterError, match=r"q_proj: delta\.g0 cannot be unpacked: it has .* bytes and ends"):
            PeftModel.from_pretrained(Mlp(), str(tmp_path))
        with pytest.raises(SpecError, match="bytes and ends"):
            read_adapter(tmp_path)
    nan = torch.full_like(tensors[f"{key}-ends"], float("nan"))
    save_file({**tensors, f"{key}-ends": nan}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match=r"q_proj: delta\.g0-ends holds NaN"):
        PeftModel.from_pretrained(Mlp(), str(tmp_path))


def test_a_packed_tensor_of_another_shape_is_told_with_both_shapes(tmp_path: Path) -> None:
    other = adapted(Mlp(), circuit=file_of("6x4", ["all_pairs"]), target_modules=["q_proj"], bits=4)
    mine = adapted(Mlp(), circuit=QUANTA, target_modules=["q_proj"], bits=4)
    with pytest.raises(AdapterError, match=r"delta\.g0 is saved as \[24, 24\], the circuit needs \[6, 6\]"):
        set_peft_model_state_dict(mine, get_peft_model_state_dict(other))


def test_transformers_loads_no_packed_adapter_in_silence(tmp_path: Path) -> None:
    """Its loading knows no codes: they have another number of dimensions than any tensor that it looks for."""
    folder, expected = saved_llama(tmp_path, bits=4)
    model = llama(tmp_path)
    if Version(transformers.__version__).major < 5:
        # It loaded by PEFT's own functions then, which know the codes.
        loaded_and_run(model, folder)
        assert torch.equal(model(TOKENS).logits, expected)
    else:
        with pytest.raises((RuntimeError, AdapterError)):
            loaded_and_run(model, folder)
    loaded: Any = PeftModel.from_pretrained(llama(tmp_path), str(folder))
    assert torch.equal(loaded(TOKENS).logits, expected)


@pytest.mark.parametrize("bits", [0, 9, -1, 4.0, "4", True])
def test_other_bits_are_refused(bits: Any) -> None:
    with pytest.raises(ValueError, match="`bits` is an integer from 1 to 8, or None to round nothing, got"):
        QuantaConfig(bits=bits)


@pytest.mark.parametrize("group_size", [0, -128, 1.5, "128", None, True])
def test_other_group_sizes_are_refused(group_size: Any) -> None:
    with pytest.raises(ValueError, match="`group_size` is an integer from 1 on, such as 128, got"):
        QuantaConfig(bits=4, group_size=group_size)


def test_a_group_size_that_rounds_nothing_is_told_and_loads(tmp_path: Path) -> None:
    config = QuantaConfig(bits=4, group_size=64, target_modules=["q_proj"])
    config.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bits": None}))
    told = "`group_size=64` rounds nothing without `bits`\nhint: QuantaConfig\\(bits=4, group_size=64, ...\\), or leave"
    with pytest.warns(UserWarning, match=told):
        assert QuantaConfig.from_pretrained(str(tmp_path)).rounding is None
    with pytest.warns(UserWarning, match=told):
        QuantaConfig(group_size=64)
    with pytest.warns(UserWarning, match=told):
        dataclasses.replace(config, bits=None)
