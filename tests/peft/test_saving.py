"""Saved adapters: what is in the files, and that they load bit for bit wherever they are loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, train
from mixed_circuit import MIXED
from peft import PeftModel, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from random_circuits import file_of
from safetensors.torch import load_file

from quanta_compiler.peft import QuantaConfig
from quanta_compiler.spec import load_spec


def trained_model(dtype: torch.dtype = torch.float32, **keys: Any) -> Any:
    model = adapted(Mlp(dtype), **keys)
    train(model, batch(dtype))
    return model


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("residual", ["frozen_copy", "folded", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_adapter_computes_the_same(
    dtype: torch.dtype, residual: str, low_cpu_mem_usage: bool, tmp_path: Path
) -> None:
    model = trained_model(dtype, residual=residual)
    expected = model(batch(dtype))
    model.save_pretrained(str(tmp_path))
    for name in ("default", "other", "g0"):
        base = Mlp(dtype)
        loaded = PeftModel.from_pretrained(
            base, str(tmp_path), adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage
        ).eval()
        assert torch.equal(loaded(batch(dtype)), expected)


def test_the_file_holds_the_trained_and_the_frozen_circuit_by_name(tmp_path: Path) -> None:
    trained_model(target_modules=["q_proj", "k_proj"]).save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {name: list(tensor.shape) for name, tensor in saved.items() if ".q_proj." in name} == {
        "base_model.model.q_proj.quanta_circuit_features": [2],
        **{
            f"base_model.model.q_proj.quanta_circuit_{part}.{gate}": [size, size]
            for part in ("delta", "frozen")
            for gate, size in {"g0": 6, "g1": 8, "g2": 12}.items()
        },
    }
    assert saved["base_model.model.k_proj.quanta_circuit_features"].tolist() == [24, 16]


def test_what_begins_at_zero_saves_no_frozen_copy(tmp_path: Path) -> None:
    trained_model(circuit=LORA, target_modules=["q_proj"]).save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert sorted(name.partition("q_proj.")[2] for name in saved) == [
        "quanta_circuit_features",
        "quanta_circuit_gates.g0-A",
        "quanta_circuit_gates.g0-B",
    ]


@pytest.mark.parametrize("residual", ["none", "frozen_copy"])
def test_frozen_gates_and_constants_are_saved_once(residual: str, tmp_path: Path) -> None:
    spec = load_spec(MIXED)

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.proj = torch.nn.Linear(spec.in_features, spec.out_features)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.proj(x)
            return result

    model = adapted(One(), circuit=MIXED, target_modules=["proj"], residual=residual)
    x = batch(width=spec.in_features)
    train(model, x)
    expected = model(x)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(PeftModel.from_pretrained(One(), str(tmp_path)).eval()(x), expected)
    saved = [key.partition("quanta_circuit_")[2] for key in load_file(tmp_path / "adapter_model.safetensors")]
    fixed = [gate.name for gate in spec.gates if gate.frozen]
    fixed += [f"constant-{gate.name}" for gate in spec.gates if gate.kind == "constant"]
    assert fixed
    for name in fixed:
        assert f"frozen.{name}" in saved
        assert not {f"gates.{name}", f"delta.{name}"} & set(saved)


@pytest.mark.slow
def test_another_seed_and_another_process_change_nothing(tmp_path: Path) -> None:
    model = trained_model(circuit=file_of("6x4", ["all_pairs"], init="orthogonal"), init_seed=3)
    model.save_pretrained(str(tmp_path))
    torch.save(model(batch()), tmp_path / "expected.pt")
    script = (
        "import torch; from peft import PeftModel; import quanta_compiler.peft; from adapted_models import Mlp, batch\n"
        f"torch.manual_seed(99); model = PeftModel.from_pretrained(Mlp(), {str(tmp_path)!r}).eval()\n"
        f"assert torch.equal(model(batch()), torch.load({str(tmp_path / 'expected.pt')!r}))"
    )
    tests = str(Path(__file__).parents[1])
    # Another number of threads would round otherwise.
    environment = {"PYTHONPATH": tests, "PATH": "", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)


def test_two_adapters_live_side_by_side_and_load_into_each_other(tmp_path: Path) -> None:
    x = batch()
    model = trained_model(target_modules=["q_proj"])
    first = model(x)
    model.add_adapter("second", QuantaConfig(circuit=LORA, target_modules=["q_proj", "o_proj"]))
    assert torch.equal(model(x), first)
    model.set_adapter("second")
    train(model, x)
    second = model(x)
    model.save_pretrained(str(tmp_path))
    model.set_adapter("default")
    assert torch.equal(model(x), first)
    loaded = PeftModel.from_pretrained(Mlp(), str(tmp_path), adapter_name="default").eval()
    loaded.load_adapter(str(tmp_path / "second"), adapter_name="second")
    assert torch.equal(loaded(x), first)
    loaded.set_adapter("second")
    assert torch.equal(loaded(x), second)
    loaded.delete_adapter("default")
    assert torch.equal(loaded(x), second)


def test_injected_adapters_are_read_and_written_by_pefts_functions() -> None:
    model = trained_model(target_modules=["q_proj"])
    state = get_peft_model_state_dict(model)
    injected: Any = inject_adapter_in_model(QuantaConfig(circuit=QUANTA, target_modules=["q_proj"]), Mlp())
    set_peft_model_state_dict(injected, state)
    assert torch.equal(injected(batch()), model(batch()))


def test_modules_to_save_go_with_the_adapter(tmp_path: Path) -> None:
    model = adapted(Mlp(), target_modules=["q_proj"], modules_to_save=["o_proj"])
    train(model, batch())
    expected = model(batch())
    model.save_pretrained(str(tmp_path))
    assert torch.equal(PeftModel.from_pretrained(Mlp(), str(tmp_path)).eval()(batch()), expected)


def test_an_adapter_trained_beside_float32_keeps_its_precision_beside_bfloat16(tmp_path: Path) -> None:
    """T - S must not become T - round(S): the difference may be smaller than the rounding."""
    model = trained_model()
    model.save_pretrained(str(tmp_path))
    loaded: Any = PeftModel.from_pretrained(Mlp(torch.bfloat16), str(tmp_path))
    for name in ("q_proj", "k_proj", "o_proj"):
        exact = getattr(model.base_model.model, name).get_delta_weight("default")
        assert torch.equal(getattr(loaded.base_model.model, name).get_delta_weight("default"), exact)
