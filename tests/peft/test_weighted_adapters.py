"""`add_weighted_adapter`: the weighted sum of updates as one circuit, or an error that says why there is none."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from moe_models import mixture
from peft import PeftModel, get_peft_model
from quick_seeds import every_second
from random_circuits import file_of, random_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.nn import fit_circuit
from quanta_compiler.peft import AdapterError, QuantaConfig
from quanta_compiler.spec import load_spec

IDENTITY = file_of("4x3x2", ["all_pairs"], init="identity")
FACTORS = file_of(24, [{"axes": [0], "kind": "lowrank", "rank": 2}])
ANGLES = {
    "version": 1,
    "name": "angles",
    "layout": {"left": 4, "branch": 6},
    "gates": [
        {"axes": ["left"], "kind": "pauli", "layers": 1, "name": "weights"},
        {"axes": ["branch"], "kind": "orthogonal", "per": ["left"], "init": "normal"},
        {"axes": ["left", "branch"], "kind": "diagonal", "init": "zeros"},
        {"axes": ["left"], "share": "weights", "transpose": True},
    ],
}


def two(circuit: Any, model: nn.Module | None = None, **keys: Any) -> Any:
    """Return a model with two trained adapters of one circuit."""
    adapted_model = adapted(Mlp() if model is None else model, circuit=circuit, **keys)
    targets = adapted_model.peft_config["default"].target_modules
    adapted_model.add_adapter("other", QuantaConfig(**{**keys, "circuit": circuit, "target_modules": targets}))
    for name in ("default", "other"):
        adapted_model.set_adapter(name)
        train(adapted_model, batch() + (name == "other"))
    return adapted_model


def assert_sum(model: Any, name: str, weights: dict[str, float], tolerance: float = 1e-6) -> None:
    """Check the update of every layer against the weighted sum, and the model's output against both together."""
    for layer in circuit_layers(model).values():
        own = {adapter: weight for adapter, weight in weights.items() if layer.has_adapter(adapter)}
        assert layer.has_adapter(name) == bool(own)
        if own:
            parts = [weight * layer.get_delta_weight(adapter).double() for adapter, weight in own.items()]
            size = sum(float(part.norm()) for part in parts)
            assert float((layer.get_delta_weight(name).double() - sum(parts)).norm()) <= tolerance * size


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
@pytest.mark.parametrize(
    ("circuit", "keys", "residual", "copies"),
    [
        (QUANTA, {}, "frozen_copy", True),
        (FACTORS, {"target_modules": ["q_proj"]}, "frozen_copy", True),
        (QUANTA, {"residual": "folded"}, "frozen_copy", True),
        (IDENTITY, {"target_modules": ["q_proj"]}, "frozen_copy", True),
        (ANGLES, {"target_modules": ["q_proj"]}, "none", False),
        (LORA, {}, "none", False),
        (
            file_of(24, [{"axes": [0], "kind": "lowrank", "rank": 2}]),
            {"target_modules": ["q_proj"]},
            "frozen_copy",
            True,
        ),
    ],
)
def test_the_sum_is_exact_trains_and_is_saved(
    circuit: Any, keys: dict[str, Any], residual: str, copies: bool, tmp_path: Path
) -> None:
    base, x = Mlp(), batch()
    model = two(circuit, copy.deepcopy(base), scale=0.5, **keys)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.add_weighted_adapter(["default", "other"], [0.75, -1.5], "sum")
    assert_sum(model, "sum", {"default": 0.75, "other": -1.5})
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())
    assert model.active_adapter == "other"
    assert not any(parameter.requires_grad for key, parameter in model.named_parameters() if ".sum" in key)
    for layer in circuit_layers(model).values():
        assert layer.quanta_circuit_residual["sum"] == residual
        frozen: Any = layer.quanta_circuit_frozen["sum"]
        assert any(not key.startswith("constant-") for key in frozen) == copies
    model.set_adapter("sum")
    summed = model(x)
    model.base_model.set_adapter(["default", "other"])
    for layer in circuit_layers(model).values():
        layer.set_scale("default", 0.75)
        layer.set_scale("other", -1.5)
    torch.testing.assert_close(model(x), summed, rtol=1e-4, atol=1e-5)
    model.set_adapter("sum")
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "sum")
    torch.testing.assert_close(loaded(x), summed, rtol=1e-5, atol=1e-6)
    train(model, x)
    assert not torch.allclose(model(x), summed)
    merged = model.merge_and_unload()
    assert isinstance(merged, Mlp)


@pytest.mark.parametrize("seed", every_second(range(20)))
def test_the_sum_of_random_circuits_is_their_sum(seed: int) -> None:
    file = random_file(seed, frozen=0.3)
    spec = load_spec(file)
    if not fit_circuit(file, spec.in_features, spec.out_features).trained:
        pytest.skip("the drawn circuit has no gate that trains, which an adapter refuses")
    base = nn.Sequential(nn.Linear(spec.in_features, spec.out_features))
    keys: dict[str, Any] = {"target_modules": ["0"], "init_weights": False}
    model = adapted(base, circuit=file, scale=1.5, **keys)
    model.add_adapter("other", QuantaConfig(circuit=file, init_seed=4, **keys))
    model.add_adapter("third", QuantaConfig(circuit={**file, "name": "named"}, init_seed=5, **keys))
    model.add_weighted_adapter(["default", "other", "third"], [0.3, -2.0, 1.0], "sum")
    assert_sum(model, "sum", {"default": 0.3, "other": -2.0, "third": 1.0}, 3e-6)


def test_the_sum_of_loras_is_a_lora_of_the_sum_of_their_ranks() -> None:
    model = adapted(Mlp(), preset="lora:3", circuit=None, init_weights=False)
    model.add_adapter("five", QuantaConfig(preset="lora:5", target_modules=["q_proj", "o_proj"], init_weights=False))
    model.add_weighted_adapter(["default", "five"], [2.0, 0.5], "sum")
    assert_sum(model, "sum", {"default": 2.0, "five": 0.5})
    ranks = {
        name: layer.quanta_circuit_plan["sum"].spec.gates[0].matrix for name, layer in circuit_layers(model).items()
    }
    assert [getattr(kind, "rank", None) for kind in ranks.values()] == [8, 3, 8]
    assert set(model.peft_config["sum"].circuit) == {"q_proj", "k_proj", "o_proj"}


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_one_adapter_is_weighed_by_its_scale_wherever_it_sits() -> None:
    several: list[dict[str, Any]] = [{"placement": "input"}, {"placement": "output"}]
    for keys in (*several, {"residual": "folded", "circuit": QUANTA}):
        model = two(**{"circuit": IDENTITY, "target_modules": ["q_proj"], "scale": 0.5, **keys})
        model.add_weighted_adapter(["default"], [-3.0], "negative")
        assert model.peft_config["negative"].scale == -1.5
        assert_sum(model, "negative", {"default": -3.0})
        assert model.peft_config["negative"].resolved == model.peft_config["default"].resolved
    model = two(QUANTA)
    circuit_layers(model)["base_model.model.q_proj"].set_scale("default", 2.0)
    model.add_weighted_adapter(["default"], [1.5], "scaled")
    assert_sum(model, "scaled", {"default": 1.5})
    model.add_weighted_adapter(["scaled", "scaled"], [0.5, 0.5], "again")
    assert_sum(model, "again", {"scaled": 1.0})


def test_a_sum_warns_of_no_circuit_that_its_parts_did_not_warn_of(tmp_path: Path) -> None:
    model: Any = get_peft_model(nn.Sequential(nn.Linear(64, 32)), QuantaConfig(target_modules=["0"]))
    model.add_adapter("other", QuantaConfig(target_modules=["0"], init_seed=1))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="circuit '.*' on layers")
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum")
        model.save_pretrained(tmp_path, selected_adapters=["sum"])
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(64, 32)), tmp_path / "sum")


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_layers_that_differ_get_entries_of_their_own_and_no_other_layer_gets_any() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Mlp() for _ in range(3))
            self.q_proj = nn.Linear(24, 24)

    keys: dict[str, Any] = {"circuit": QUANTA, "init_weights": False}
    model = adapted(Deep(), target_modules=["q_proj"], **keys)
    model.add_adapter("b", QuantaConfig(target_modules=r"layers\.1\.q_proj", **keys))
    model.add_adapter("c", QuantaConfig(target_modules=r"layers\.[02]\.k_proj", **keys))
    model.add_weighted_adapter(["default", "b", "c"], [1.0, 2.0, 3.0], "sum")
    assert_sum(model, "sum", {"default": 1.0, "b": 2.0, "c": 3.0})
    assert set(model.peft_config["sum"].circuit) == {
        r"layers\.0\.q_proj",
        r"layers\.1\.q_proj",
        r"layers\.2\.q_proj",
        "q_proj",
        "k_proj",
    }
    model = adapted(Deep(), target_modules="q_proj", **keys)
    model.add_adapter("b", QuantaConfig(target_modules="q_proj", **keys))
    model.add_weighted_adapter(["default", "b"], [1.0, 1.0], "sum")
    assert_sum(model, "sum", {"default": 1.0, "b": 1.0})


def test_conv1d_and_modules_to_save() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj, self.head = Conv1D(16, 24), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.proj(x))
            return result

    keys: dict[str, Any] = {"preset": "lora:2", "target_modules": ["proj"], "init_weights": False}
    model: Any = get_peft_model(Two(), QuantaConfig(**keys))
    model.add_adapter("b", QuantaConfig(modules_to_save=["head"], **keys))
    nn.init.normal_(model.base_model.model.head.modules_to_save["b"].weight)
    model.add_weighted_adapter(["default", "b"], [1.0, 0.5], "sum")
    assert_sum(model, "sum", {"default": 1.0, "b": 0.5})
    heads = model.base_model.model.head.modules_to_save
    assert torch.equal(heads["sum"].weight, heads["b"].weight)
    with pytest.raises(AdapterError, match="same module with modules_to_save, but found 1 such instance"):
        model.add_weighted_adapter(["b", "sum"], [1.0, 1.0], "more")


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_what_is_no_circuit_says_which_layer_and_why_before_anything_changes() -> None:
    model = adapted(Mlp(), init_weights=False)
    targets: dict[str, Any] = {"target_modules": ["q_proj", "o_proj"]}
    model.add_adapter("lora", QuantaConfig(circuit=LORA, **targets))
    model.add_adapter("chain", QuantaConfig(circuit=file_of("4x3x2", ["chain"]), **targets))
    model.add_adapter("none", QuantaConfig(circuit=QUANTA, residual="none", **targets))
    model.add_adapter("input", QuantaConfig(circuit=IDENTITY, placement="input", target_modules=["q_proj"]))
    keys = list(model.state_dict())
    differ = (
        r"^there is no circuit for the weighted sum:\nq_proj: the circuits of 'default' and 'lora' differ, 'test' and "
        r"'test': .*\no_proj: .*\nhint: activate the adapters together, .*set_adapter\(\['a', 'b'\]\).*convert_to_lora"
    )
    told = {
        ("default", "lora"): differ,
        ("default", "chain"): r"q_proj: the circuits of 'default' and 'chain' differ",
        ("default", "none"): r"q_proj: 'none' has no frozen copy \(`residual='none'`\), and others have one",
        ("default", "input"): r"q_proj: 'input' multiplies the weight \(`placement='input'`\), and products do not",
        ("default", "nobody"): "Adapter nobody does not exist\nhint: there is default, lora",
        (): "no adapter is given",
    }
    for names, message in told.items():
        with pytest.raises(AdapterError, match=message):
            model.add_weighted_adapter(list(names), [1.0] * len(names), "sum")
    with pytest.raises(AdapterError, match="`weights` is a list with a finite number for each of 2 adapters"):
        model.add_weighted_adapter(["default", "default"], [1.0], "sum")
    with pytest.raises(AdapterError, match="there is an adapter 'lora' already\nhint: take another name"):
        model.add_weighted_adapter(["default"], [1.0], "lora")
    with pytest.raises(AdapterError, match=r"`combination_type='ties'` changes the numbers .*\nhint: leave it out"):
        model.add_weighted_adapter(["default"], [1.0], "sum", combination_type="ties", density=0.5)
    assert list(model.state_dict()) == keys
    assert "sum" not in model.peft_config


def test_one_adapter_on_experts_or_of_few_bits_is_weighed_and_several_are_refused_by_tensor() -> None:
    config: dict[str, Any] = {
        "preset": "lora:2",
        "target_parameters": ["experts.down_proj"],
        "target_modules": [],
        "bits": 4,
    }
    model: Any = get_peft_model(mixture("qwen3_moe"), QuantaConfig(**config, init_weights=False))
    model.add_adapter("other", QuantaConfig(**config))
    model.add_weighted_adapter(["default"], [-3.0], "negative")
    layers = [layer for layer in circuit_layers(model).values() if layer.has_adapter("default")]
    assert layers
    for layer in layers:
        update = layer.get_delta_weight("default")
        assert update.any()
        torch.testing.assert_close(layer.get_delta_weight("negative"), -3 * update)
    told = (
        r"\nmodel\.layers\.0\.mlp\.experts\.down_proj: experts have a circuit each[\s\S]*hint: give one "
        r"adapter its weight by layer\.set_scale.*updates beside a layer are added"
    )
    with pytest.raises(AdapterError, match=told):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum")
