"""The saved configuration holds what became of its circuits at each shape, and later versions keep to that."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, as_format_1, batch, circuit_layers, train
from mixed_circuit import MIXED
from peft import PeftConfig, PeftModel, get_peft_model
from random_circuits import file_of
from torch import nn

import quanta_compiler
from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.peft import AdapterError, QuantaConfig
from quanta_compiler.spec import load_spec

TEMPLATE = file_of({"auto": 3}, ["all_pairs"])
OLD, NEW = [7, 5, 1], [4, 3, 3]
"""What format 1 and today's rule make of three axes for 35 features."""


class Odd(nn.Module):
    """Layers of 35 -> 35 and 35 -> 22 features."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first = nn.Linear(35, 35)
            self.last = nn.Linear(35, 22)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.tanh(self.first(x)))
        return result


def odd(config: QuantaConfig) -> Any:
    return get_peft_model(Odd(), config)


def layouts(model: Any) -> list[list[int]]:
    plans = [layer.quanta_circuit_plan["default"] for layer in circuit_layers(model).values()]
    return [[axis.size for axis in plan.spec.layout] for plan in plans]


def config_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return data


def change(folder: Path, change_data: Callable[[dict[str, Any]], object]) -> None:
    data = config_of(folder)
    change_data(data)
    (folder / "adapter_config.json").write_text(json.dumps(data))


@pytest.mark.parametrize("preset", ["lora:3", "krona", "quantum_peft:rank=2", "quanta:auto=3", "monarch:2"])
def test_the_circuits_of_a_preset_are_saved_gate_by_gate(preset: str, tmp_path: Path) -> None:
    model = adapted(Mlp(), circuit=None, preset=preset)
    model.save_pretrained(str(tmp_path))
    saved = config_of(tmp_path)
    assert (saved["format"], saved["package_version"]) == (3, quanta_compiler.__version__)
    layers = circuit_layers(model).values()
    assert set(saved["resolved"]) == {f"{layer.in_features} -> {layer.out_features}" for layer in layers}
    for layer in layers:
        entry = saved["resolved"][f"{layer.in_features} -> {layer.out_features}"]
        assert load_spec(entry["circuit"]) == layer.quanta_circuit_plan["default"].spec
        assert "preset" not in entry["circuit"]
        assert entry["residual"] == layer.quanta_circuit_residual["default"]


def test_circuits_of_a_mapping_are_saved_by_key_and_shape_and_named_axes_keep_their_order(tmp_path: Path) -> None:
    spec = load_spec(MIXED)

    def build() -> nn.Module:
        return nn.ModuleDict({"a1": nn.Linear(24, 24), "a2": nn.Linear(24, 8), "b": nn.Linear(20, 9)})

    model = get_peft_model(build(), QuantaConfig(circuit={"a[12]": TEMPLATE, "b": MIXED}))
    model.save_pretrained(str(tmp_path))
    resolved = config_of(tmp_path)["resolved"]
    assert set(resolved) == {"a[12]: 24 -> 24", "a[12]: 24 -> 8", "b: 20 -> 9"}
    assert isinstance(resolved["b: 20 -> 9"]["circuit"], str)
    assert load_spec(resolved["b: 20 -> 9"]["circuit"]) == spec
    loaded = circuit_layers(PeftModel.from_pretrained(build(), str(tmp_path)))
    plans = {name: layer.quanta_circuit_plan["default"] for name, layer in circuit_layers(model).items()}
    assert {name: layer.quanta_circuit_plan["default"] for name, layer in loaded.items()} == plans


def test_an_adapter_without_a_marker_keeps_the_layouts_of_its_time_and_is_saved_with_them(tmp_path: Path) -> None:
    x = batch(width=35)
    model = odd(QuantaConfig(circuit=TEMPLATE, target_modules=["first", "last"], format=1))
    assert layouts(model) == [OLD, OLD]
    train(model, x)
    model.save_pretrained(str(tmp_path / "first"))
    as_format_1(tmp_path / "first")
    loaded = PeftModel.from_pretrained(Odd(), str(tmp_path / "first")).eval()
    assert loaded.peft_config["default"].format == 3
    torch.testing.assert_close(loaded(x), model(x))
    loaded.save_pretrained(str(tmp_path / "again"))
    assert config_of(tmp_path / "again")["format"] == 3
    again = PeftModel.from_pretrained(Odd(), str(tmp_path / "again")).eval()
    assert layouts(again) == [OLD, OLD]
    torch.testing.assert_close(again(x), model(x))
    for folder in ("first", "again"):
        assert set(read_adapter(tmp_path / folder).updates) == {"first", "last"}


def test_a_loaded_configuration_keeps_its_circuits_and_lays_others_out_by_the_rules_of_today(tmp_path: Path) -> None:
    class Shorter(Odd):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(35, 20)

    old = QuantaConfig(circuit=TEMPLATE, target_modules=["first", "last"], format=1)
    odd(old).save_pretrained(str(tmp_path))
    config = QuantaConfig.from_pretrained(str(tmp_path))
    assert layouts(get_peft_model(Shorter(), config)) == [OLD, NEW]
    assert set(config.resolved) == {"35 -> 35", "35 -> 22", "35 -> 20"}
    assert layouts(odd(QuantaConfig(circuit=TEMPLATE, target_modules=["first", "last"]))) == [NEW, NEW]


def test_a_first_format_that_was_not_put_on_a_model_stays_one(tmp_path: Path) -> None:
    QuantaConfig(circuit=TEMPLATE).save_pretrained(str(tmp_path))
    as_format_1(tmp_path)
    loaded = PeftConfig.from_pretrained(str(tmp_path))
    assert (loaded.format, loaded.preset, loaded.circuit) == (1, None, TEMPLATE)
    other: Any = dataclasses.replace(loaded, preset="lora:2")
    assert (other.format, other.circuit) == (3, QuantaConfig(preset="lora:2").circuit)
    loaded.save_pretrained(str(tmp_path / "again"))
    assert config_of(tmp_path / "again")["format"] == 1


@pytest.mark.parametrize("read", [PeftConfig.from_pretrained, QuantaConfig.from_pretrained])
def test_a_newer_format_is_refused(read: Callable[[str], Any], tmp_path: Path) -> None:
    adapted(Mlp()).save_pretrained(str(tmp_path))
    change(tmp_path, lambda data: data.update(format=4))
    with pytest.raises(AdapterError, match=r"format 4; this version .* reads up to 3\nhint: update the package"):
        read(str(tmp_path))


def edited_circuit(data: dict[str, Any]) -> None:
    data["resolved"]["24 -> 16"]["circuit"]["layout"] = [3, 4, 2]


def edited_residual(data: dict[str, Any]) -> None:
    data["resolved"]["24 -> 24"]["residual"] = "folded"


def of_another_shape(data: dict[str, Any]) -> None:
    data["resolved"]["24 -> 32"] = data["resolved"]["24 -> 16"]


def of_another_circuit(data: dict[str, Any]) -> None:
    other = QuantaConfig(circuit=QUANTA)
    data["circuit"], data["circuit_hash"] = other.circuit, other.circuit_hash


@pytest.mark.parametrize(
    "edit", [edited_circuit, edited_residual, of_another_shape, of_another_circuit], ids=lambda edit: edit.__name__
)
def test_resolved_circuits_that_are_not_what_was_saved_are_refused(
    edit: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    adapted(Mlp(), circuit=TEMPLATE).save_pretrained(str(tmp_path))
    change(tmp_path, edit)
    with pytest.raises(AdapterError, match=r"`resolved` does not hold what was saved for .*\nhint: restore"):
        PeftModel.from_pretrained(Mlp(), str(tmp_path))


def test_a_circuit_that_is_changed_on_purpose_drops_what_the_old_one_was() -> None:
    config = QuantaConfig(circuit=TEMPLATE, target_modules=["q_proj"])
    get_peft_model(Mlp(), config)
    changed = dataclasses.replace(config, circuit=QUANTA, circuit_hash=None)
    assert not changed.resolved
    assert dataclasses.replace(config, circuit_hash=None).resolved == config.resolved
    other = dataclasses.replace(config, residual="folded")
    model = get_peft_model(Mlp(), other)
    assert model.base_model.model.q_proj.quanta_circuit_residual == {"default": "folded"}
    assert [entry["residual"] for entry in other.resolved.values()] == ["folded"]
    assert [entry["residual"] for entry in config.resolved.values()] == ["frozen_copy"]


def test_one_configuration_serves_many_models_and_copies_go_their_own_way(tmp_path: Path) -> None:
    config = QuantaConfig(preset="lora:2", target_modules=["q_proj", "first"])
    copies = [copy.copy(config), copy.deepcopy(config), dataclasses.replace(config)]
    model = get_peft_model(Mlp(), config)
    assert all(not one.resolved for one in copies)
    one = get_peft_model(Odd(), config)
    assert list(config.resolved) == ["24 -> 24", "35 -> 35"]
    before = copy.deepcopy(config.resolved)
    one.add_adapter("ref", one.peft_config["default"])
    assert config.resolved == before
    assert copies[1] == copies[2]
    get_peft_model(Mlp(), copies[1])
    assert copies[1].resolved == {"24 -> 24": before["24 -> 24"]}
    model.save_pretrained(str(tmp_path))
    loaded: Any = QuantaConfig.from_pretrained(str(tmp_path))
    loaded.inference_mode, loaded.auto_mapping = False, None
    assert loaded == config


def test_the_model_card_shows_the_circuits_once_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    model = adapted(Mlp(), circuit=None, preset="lora:3")
    model.save_pretrained(str(tmp_path))
    card = tmp_path / "README.md"
    text = card.read_text()
    assert text.startswith("---\n")
    assert "library_name: peft" in text
    for part in ("import quanta_compiler.peft", f"version {quanta_compiler.__version__}", "24 -> 16", "rank: 3"):
        assert part in text, part
    card.write_text(f"{text}\nWhat I found out: it works.\n")
    model.save_pretrained(str(tmp_path))
    again = card.read_text()
    assert "What I found out: it works." in again
    assert again.count("## Circuits") == 1
    for circuit in [entry["circuit"] for entry in config_of(tmp_path)["resolved"].values()]:
        assert f"in_features: {circuit['in_features']}\nout_features: {circuit['out_features']}\n" in again


def test_a_card_in_other_bytes_than_ours_stays_so(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    written = b"# M\xfcller\r\n\r\nA line.\r\n"
    (folder / "README.md").write_bytes(written)
    model = get_peft_model(Mlp(), QuantaConfig(preset="lora:1", target_modules=["k_proj"]), adapter_name="one")
    for _ in range(2):
        model.save_pretrained(str(tmp_path))
        card = (folder / "README.md").read_bytes()
        assert card.startswith(written.rstrip())
        assert card.count(b"## Circuits") == 1


def test_an_adapter_of_another_name_has_its_card_beside_it_and_a_bare_configuration_none(tmp_path: Path) -> None:
    config = QuantaConfig(preset="lora:1", target_modules=["k_proj"])
    config.save_pretrained(str(tmp_path / "bare"))
    assert not (tmp_path / "bare" / "README.md").exists()
    model = get_peft_model(Mlp(), config, adapter_name="one")
    config.base_model_name_or_path = 'a "b"'
    model.save_pretrained(str(tmp_path))
    text = (tmp_path / "one" / "README.md").read_text()
    assert text.startswith('---\nlibrary_name: peft\nbase_model: "a \\"b\\""\n---\n')
    assert "Layers with 24 -> 16 features: residual `none`, scale 1." in text


def test_what_tensors_hold_is_told_by_their_shape_where_resolved_circuits_were_taken_out(tmp_path: Path) -> None:
    """Without them today's rule makes another layout, and the loader says so."""
    odd(QuantaConfig(circuit=TEMPLATE, target_modules=["first"], format=1)).save_pretrained(str(tmp_path))
    change(tmp_path, lambda data: data.update(resolved=None))
    with pytest.raises(AdapterError, match=r"first: .* is saved as \[35, 35\], the circuit needs \[12, 12\]"):
        PeftModel.from_pretrained(Odd(), str(tmp_path))
