"""`quanta analyze --shrink`: smaller adapters that PEFT loads, what it says of them, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from commands import quanta
from lora_folders import diagonal_lora, save_lora
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from quanta_compiler.peft import QuantaConfig

Golden = Callable[[str, str], None]
KRONA = {"version": 1, "name": "product", "preset": "krona"}
PRESETS = ("lora:6", "tt:rank=4,layout=4-3-2", "loretta:rank=5,tt_rank=4,layout=4-3-2", "btt:rank=3", "quantum_peft:4")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(folder: str = "adapter", **keys: Any) -> Any:
    """Save a trained adapter, and return its model."""
    model = adapted(Mlp(), **keys)
    train(model, batch(), steps=6)
    model.save_pretrained(folder)
    return model


def updates(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name.rpartition(".")[2]: layer.get_delta_weight("default") for name, layer in circuit_layers(model).items()}


def bound(model: Any, x: torch.Tensor, energy: float) -> torch.Tensor:
    """Return how far each output of an Mlp can be away where every update lost at most that part of its energy.

    A layer's output is off by at most ||W'|| times what its input is off by, and by sqrt(E) ||U|| ||x||.
    """
    off = torch.zeros(len(x))
    layers = {name.rpartition(".")[2]: layer for name, layer in circuit_layers(model).items()}
    for name, between in (("q_proj", torch.relu), ("k_proj", torch.tanh), ("o_proj", None)):
        update, layer = layers[name].get_delta_weight("default"), layers[name]
        apart = math.sqrt(energy) * update.norm()
        weight = torch.linalg.matrix_norm(layer.get_base_weight() + update, 2) + apart
        off = weight * off + apart * x.norm(dim=1)
        x = layer(x) if between is None else between(layer(x))
    return off


@pytest.mark.parametrize("preset", PRESETS)
def test_a_smaller_adapter_loads_and_computes_nearly_the_same(preset: str) -> None:
    energy = 0.15
    model = saved(circuit=None, preset=preset, scale=0.7)
    result = quanta("analyze", "adapter", "--shrink", str(energy), "-o", "smaller", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    data = json.loads(result.stdout)
    loaded = PeftModel.from_pretrained(Mlp(), "smaller")
    before, after = updates(model), updates(loaded)
    errors, norms = [], []
    for layer in data["layers"]:
        name = layer["layer"]
        norms.append(float(before[name].norm()) ** 2)
        errors.append(float((after[name] - before[name]).norm()) ** 2)
        assert errors[-1] <= energy * norms[-1] * (1 + 1e-4)
        assert layer["energy_lost"] == pytest.approx(errors[-1] / norms[-1], abs=1e-6)
        assert layer["relative_error"] == pytest.approx(math.sqrt(layer["energy_lost"]))
        assert bool(layer["changes"]) == (layer["reason"] is None)
        trained = sum(p.numel() for key, p in loaded.named_parameters() if f"{name}.quanta_circuit_gates" in key)
        assert layer["parameters"]["after"] == trained
    assert data["energy_lost"] == pytest.approx(sum(errors) / sum(norms), abs=1e-6)
    assert data["parameters"]["after"] < data["parameters"]["before"]
    assert data["parameters"]["before"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    x = batch()
    with torch.no_grad():
        assert ((loaded(x) - model(x)).norm(dim=1) <= bound(model, x, energy) * (1 + 1e-4)).all()


def test_layers_of_one_shape_get_circuits_of_their_own_and_the_configuration_comes_back() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(12, 12)}) for _ in range(4))
            self.up = nn.Linear(12, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = x + torch.tanh(layer.get_submodule("up")(x))
            result: torch.Tensor = self.up(x)
            return result

    model = adapted(Blocks(), circuit=None, preset="lora:4", target_modules=["up"])
    ranks = {"layers.0.up": 1, "layers.1.up": 3, "layers.2.up": 1, "layers.3.up": 4, "up": 3}
    draw = torch.Generator().manual_seed(0)
    for name, layer in circuit_layers(model).items():
        left = torch.randn(12, 4, generator=draw)
        left[:, ranks[name.removeprefix("base_model.model.")] :] = 0
        layer.quanta_circuit_gates["default"].get_parameter("g0-B").data = left
    model.save_pretrained("adapter")
    assert quanta("analyze", "adapter", "--shrink", "1e-9", "-o", "smaller").exit_code == 0
    config = QuantaConfig.from_pretrained("smaller")
    written = {key: circuit["gates"][0]["rank"] for key, circuit in config.circuit.items()}
    assert written == {
        r"^layers\.(?:0|2)\.up": 1,
        r"^(?:layers\.1\.up|up)": 3,
        r"^layers\.3\.up": 4,
    }
    assert config.target_modules == {"up"}
    loaded = PeftModel.from_pretrained(Blocks(), "smaller")
    x = torch.randn(3, 12, generator=draw)
    torch.testing.assert_close(loaded(x), model(x), atol=1e-5, rtol=1e-5)
    # Saved, loaded and shrunk again it is the same.
    loaded.save_pretrained("again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (Path("again") / name).read_bytes() == (Path("smaller") / name).read_bytes(), name
    assert quanta("analyze", "again", "--shrink", "1e-9", "-o", "third").exit_code == 1


def test_what_cannot_be_smaller_is_copied_and_told(golden: Golden) -> None:
    circuits = {"q_proj": LORA, "k_proj": QUANTA, "o_proj": KRONA}
    model = adapted(Mlp(), circuit=circuits, target_modules=None, modules_to_save=None)
    for name, layer in circuit_layers(model).items():
        for parameter in layer.quanta_circuit_gates.parameters():
            parameter.data = torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape) + torch.eye(
                *parameter.shape
            ) * (2 if "q_proj" in name else 1)
    model.save_pretrained("adapter")
    result = quanta("analyze", "adapter", "--shrink", "0.2", "-o", "smaller")
    assert (result.exit_code, result.stderr) == (0, "")
    golden("cli/analyze_shrink.txt", result.stdout)
    before, after = (load_file(f"{name}/adapter_model.safetensors") for name in ("adapter", "smaller"))
    assert list(before) == list(after)
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]) == ("q_proj.quanta_circuit_gates" not in key), key
    loaded = PeftModel.from_pretrained(Mlp(), "smaller")
    for name in ("k_proj", "o_proj"):
        torch.testing.assert_close(updates(loaded)[name], updates(model)[name], rtol=0, atol=0)


def test_other_tensors_of_the_adapter_stay() -> None:
    model = saved(circuit=LORA, target_modules=["q_proj"], modules_to_save=["o_proj"])
    assert quanta("analyze", "adapter", "--shrink", "0.5", "-o", "smaller").exit_code == 0
    loaded = PeftModel.from_pretrained(Mlp(), "smaller")
    torch.testing.assert_close(loaded.o_proj.weight, model.o_proj.weight)


def test_only_some_layers() -> None:
    saved(circuit=LORA)
    result = quanta("analyze", "adapter", "--shrink", "0.5", "-o", "smaller", "--layers", "^k", "--json")
    layers = {layer["layer"]: layer for layer in json.loads(result.stdout)["layers"]}
    assert layers["q_proj"]["reason"] == "--layers leaves it as it is"
    assert [name for name, layer in layers.items() if layer["changes"]] == ["k_proj"]


def test_it_can_be_trained_on() -> None:
    saved(circuit=LORA)
    assert quanta("analyze", "adapter", "--shrink", "0.3", "-o", "smaller").exit_code == 0
    loaded = PeftModel.from_pretrained(Mlp(), "smaller", is_trainable=True)
    x = batch()
    before = loaded(x).pow(2).mean()
    train(loaded, x, rate=1e-3)
    assert loaded(x).pow(2).mean() < before


def refused(*arguments: str) -> str:
    result = quanta("analyze", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert not Path("out").exists()
    return result.stderr


def test_adapters_with_nothing_to_shrink_say_why() -> None:
    saved("quanta", residual="none", circuit=QUANTA, init_weights=False)
    saved(
        "copies", circuit={"version": 1, "name": "low", "layout": 24, "gates": [{**LORA["gates"][0], "init": "normal"}]}
    )
    saved("lora", circuit=LORA)
    save_lora(Path("peft"), {"q": diagonal_lora([1], [0], (4, 4))}, 1)
    texts = [refused(name, "--shrink", "1e-9", "-o", "out") for name in ("quanta", "copies", "lora", "peft")]
    assert texts[0] == (
        "quanta: no layer of it gets smaller: circuit test has no rank, no K' and no bond to lower; a bond is an axis "
        "between two gates that alone joins two parts of a circuit\n"
    )
    assert texts[1] == (
        "copies: no layer of it gets smaller: with residual frozen_copy its update is a difference, of up to twice the "
        "rank, and T alone cannot be smaller than what is subtracted\n"
    )
    assert texts[2].endswith("no size of it can be lowered for so little\n  hint: allow a larger loss than 1e-09\n")
    assert texts[3].startswith("peft: it is no adapter of circuits, which `--shrink` is for\n")


def test_layers_that_are_not_there_are_refused_as_without_shrink() -> None:
    saved(circuit=LORA)
    said = refused("adapter", "--layers", "nothing")
    assert "--layers 'nothing' finds none of its layers: " in said
    assert refused("adapter", "--layers", "nothing", "--shrink", "0.5", "-o", "out") == said


def test_an_untrained_adapter() -> None:
    adapted(Mlp(), circuit=LORA).save_pretrained("adapter")
    assert "its update is zero" in refused("adapter", "--shrink", "0.1", "-o", "out")


def test_a_rounded_adapter_is_made_smaller_once_its_numbers_are_taken_as_they_are() -> None:
    model = saved(circuit=None, preset="lora:6", bits=8)
    assert refused("adapter", "--shrink", "0.5", "-o", "out") == (
        "adapter/adapter_config.json: it is rounded to 8 bits, and what that costs a smaller circuit is not counted\n"
        "  hint: set `bits` to null there, shrink it, and set it again\n"
    )
    path = Path("adapter/adapter_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "bits": None}))
    assert quanta("analyze", "adapter", "--shrink", "0.5", "-o", "smaller").exit_code == 0
    smaller = updates(PeftModel.from_pretrained(Mlp(), "smaller"))
    for name, update in updates(model).items():
        assert 0 < (smaller[name] - update).norm() ** 2 <= 0.5 * update.norm() ** 2


def test_nothing_is_overwritten() -> None:
    saved(circuit=LORA)
    kept = {path: path.read_bytes() for path in Path("adapter").iterdir()}
    asked = ("adapter", "--shrink", "0.3", "-o")
    assert "adapter holds an adapter already: choose another folder" in refused(*asked, "adapter")
    assert "is the state dict itself" in refused(*asked, "adapter", "--force")
    assert kept == {path: path.read_bytes() for path in Path("adapter").iterdir()}
    assert quanta("analyze", *asked, "smaller").exit_code == 0
    assert "smaller holds an adapter already" in refused(*asked, "smaller")
    assert quanta("analyze", *asked, "smaller", "--force").exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["adapter", "smaller"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shrink", "0", "-o", "out"], "0 is no part of the energy: write a number between 0 and 1"),
        (["--shrink", "1", "-o", "out"], "1 is no part of the energy"),
        (["--shrink", "nan", "-o", "out"], "nan is no part of the energy"),
        (["--shrink", "0.1"], "say with -o DIR where the smaller adapter goes"),
        (["--shrink", "0.1", "-o", "out", "--top", "4"], "--top"),
        (["--shrink", "0.1", "-o", "out", "--vectors", "8"], "a smaller adapter has no singular values to print"),
        (["adapter", "--shrink", "0.1", "-o", "out"], "one adapter is shrunk at a time, and 2 are given"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_wrong_usage(options: list[str], said: str) -> None:
    result = quanta("analyze", "adapter", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_difference_to_the_identity_stays_as_it_is() -> None:
    chain = {"version": 1, "name": "chain", "layout": "4x3x2", "init": "identity", "gates": ["chain"]}
    saved(circuit=chain, target_modules=["q_proj"])
    assert "with residual identity its update is a difference" in refused("adapter", "--shrink", "0.5", "-o", "out")


def test_fewer_angles_where_the_update_is_a_difference_to_the_identity() -> None:
    gates = [
        {"axes": [0, 1], "kind": "orthogonal"},
        {"axes": [1, 2], "init": "identity"},
        {"axes": [0, 2], "kind": "orthogonal", "map": "cayley", "rank_parameters": 6},
    ]
    circuit = {"version": 1, "name": "turned", "layout": "4x3x2", "gates": gates}
    for placement, targets in (("parallel", ["q_proj"]), ("input", ["q_proj", "k_proj"])):
        model = saved(placement, circuit=circuit, placement=placement, target_modules=targets, scale=0.7)
        result = quanta("analyze", placement, "--shrink", "0.3", "-o", f"{placement}-smaller", "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        data = json.loads(result.stdout)
        loaded = PeftModel.from_pretrained(Mlp(), f"{placement}-smaller")
        assert data["parameters"]["after"] < data["parameters"]["before"]
        after = dict(circuit_layers(loaded))
        for name, layer in circuit_layers(model).items():
            both = [
                one.quanta_circuit_plan["default"].operator(one.circuits("default")[0]) for one in (layer, after[name])
            ]
            (figures,) = (it for it in data["layers"] if name.endswith(it["layer"]))
            lost = (both[1] - both[0]).norm() ** 2 / (both[0] - torch.eye(24)).norm() ** 2
            assert figures["energy_lost"] == pytest.approx(float(lost), abs=1e-5)
            assert figures["energy_lost"] <= 0.3
            assert {change["what"] for change in figures["changes"]} == {"rank_parameters"}
