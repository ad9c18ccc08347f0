"""Parameters that layers have together are counted once, as the papers count them, and as an adapter has them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version
from peft import get_peft_model
from random_circuits import file_of
from transformers import AutoConfig, AutoModelForCausalLM

from quanta_compiler import load_spec
from quanta_compiler.compare import compare
from quanta_compiler.compare.figures import Conditions
from quanta_compiler.compare.run import model_layers
from quanta_compiler.models.across import alone, together, trained_again
from quanta_compiler.models.layers import ModelLayers, TargetLayer
from quanta_compiler.peft import QuantaConfig
from quanta_compiler.predict.calibration import load_calibration
from quanta_compiler.recommend import recommend
from quanta_compiler.recommend.budget import parse_budget

MODELS = Path(__file__).parents[2] / "examples" / "models"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}


def trained(baseline: str, model: str, *targets: str) -> int:
    (row,) = compare(baselines=[baseline], model=MODELS / model, targets=targets).rows
    return row.trainable


@pytest.mark.parametrize("rank", [40, 80, 88])
def test_lotr_by_its_formula(rank: int) -> None:
    """Two matrices and 24 cores on the queries and values of RoBERTa's twelve layers."""
    assert trained(f"lotr:{rank}", "roberta-base", "query", "value") == 2 * 768 * rank + 24 * rank**2


@pytest.mark.parametrize(("rank", "published"), [(1024, 0.043), (256, None)])
def test_vera_by_its_formula(rank: int, published: float | None) -> None:
    """Kopiczko et al., section 3.2: |Theta| = L (d + r); table 2 has 0.043 M for RoBERTa base."""
    count = trained(f"vera:{rank}", "roberta-base", "query", "value")
    assert count == 24 * (768 + rank)
    assert published is None or round(count / 1e6, 3) == published


def gate(scope: str | None) -> dict[str, Any]:
    return {"axes": [0], "name": "g", **({"across": scope} if scope else {})}


def test_which_layers_have_a_parameter_together() -> None:
    def name(scope: str, layer: str) -> str:
        return together(load_spec(file_of(8, [gate(scope)])), layer)["g"]

    layer = "model.layers.3.mlp.experts.5.w1"
    assert name("all", layer) == "g-8x8"
    assert name("layers", layer) == "g-w1-8x8"
    assert name("targets", layer) == name("targets", "model.layers.3.self_attn.q_proj") == "g-model-layers-3-8x8"
    # Without a number all targets are of one layer; dashes in a name make no two of them alike.
    assert name("targets", "q_proj") == name("targets", "block.k_proj") == "g-8x8"
    assert name("layers", "a.b-c") == "g-b--c-8x8"
    per = load_spec(file_of("2x8", [{"axes": [1], "per": [0], "across": "all"}]))
    assert together(per, layer) == {"g0": "g0-2x8x8"}


def test_numbers_are_counted_once_for_every_group() -> None:
    gates = [
        gate("all"),
        {**gate("layers"), "name": "h"},
        {**gate("targets"), "name": "i"},
        {**gate(None), "name": "j"},
    ]
    gates.append({**gate("all"), "name": "frozen", "frozen": True})
    spec = load_spec(file_of(8, gates))
    names = [f"layers.{index}.{target}" for index in range(3) for target in ("q", "v")]
    # 6 of j, one of g, two of h, three of i.
    assert trained_again((name, spec) for name in names) == 6 * 4 * 64 - (6 + 1 + 2 + 3) * 64
    assert list(alone([(name, spec) for name in names])) == []
    found = [(name, one.name) for (name, _), one in alone([("layers.0.q", spec), ("layers.1.v", spec)])]
    assert found == [(name, each) for name in ("layers.0.q", "layers.1.v") for each in ("h", "i")]


CIRCUITS: dict[str, Any] = {
    "lotr": {"version": 1, "name": "c", "preset": "lotr", "rank": 3},
    "vera": {"version": 1, "name": "c", "preset": "vera", "rank": 5},
    "scopes": file_of(
        "8x4",
        [{**gate("layers"), "axes": [0, 1]}, {"axes": [1], "across": "targets", "init": "zeros"}, {"axes": [0]}],
    ),
}


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "k_proj", "o_proj", "up_proj")])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_totals_are_those_of_the_adapted_model(circuit: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    file = tmp_path / "circuit.json"
    file.write_text(json.dumps(CIRCUITS[circuit]))
    (row,) = compare([file], model=tmp_path, targets=targets).rows
    config = QuantaConfig(circuit=CIRCUITS[circuit], target_modules=list(targets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)), config)
    assert model.get_nb_trainable_parameters()[0] == row.trainable
    assert row.optimizer_bytes == 8 * row.trainable


def test_what_is_recommended_counts_once_and_shares_with_somebody() -> None:
    conditions = Conditions(2048, "auto", load_calibration())

    def made(*names: str) -> Any:
        layers = tuple(TargetLayer(name, 64, 64) for name in names)
        return recommend(ModelLayers("m", 10**6, 2, 64, 64, 4, 16, 64, layers), parse_budget("4000"), conditions)

    lotr = made("layers.0.q", "layers.0.v", "layers.1.q", "layers.1.v").choice("lotr")
    # 128 r + 4 r^2 <= 4000, not 4 (128 r + r^2).
    assert {document["rank"] for document in lotr.circuits.values()} == {19}
    assert lotr.row.trainable == 128 * 19 + 4 * 19**2
    lonely = made("layers.0.q")
    assert lonely.choice("lotr") is None
    assert lonely.left_out["vera"] == "layers.0.q has no other layer of its shape to share gate 'A' with"


MIXTURE = {**LLAMA, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4}
REFUSED = {
    "experts": (
        MIXTURE,
        ["q_proj", "experts.down_proj"],
        ".mlp.experts.down_proj has experts, each with parameters of",
    ),
    "alone": (
        {**LLAMA, "num_hidden_layers": 1},
        ["q_proj"],
        ".q_proj has no other layer of its shape to share gate 'A'",
    ),
}


@pytest.mark.parametrize("family", ["lotr", "vera"])
@pytest.mark.parametrize("why", REFUSED)
def test_where_layers_cannot_share_there_is_nothing_to_count(why: str, family: str, tmp_path: Path) -> None:
    """As an adapter refuses them."""
    if why == "experts" and Version(transformers.__version__).major < 5:
        pytest.skip("in transformers 4 every expert has layers of its own, which can share")
    config, targets, reason = REFUSED[why]
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = compare(baselines=[f"{family}:2", "lora:2"], model=tmp_path, targets=targets)
    assert [row.name for row in made.rows] == ["lora:2"]
    assert [reason in problem.message for problem in made.problems] == [True]
    layers = model_layers(tmp_path, targets)
    found = recommend(layers, parse_budget("5000"), Conditions(2048, "auto", load_calibration()))
    assert found.choice(family) is None
    assert reason in found.left_out[family]


def test_meta_tt_by_its_formula() -> None:
    file = MODELS.parent / "meta-tt-768.yaml"
    (row,) = compare([file], model=MODELS / "roberta-base", targets=["query", "value"]).rows
    assert row.trainable == 2 * 768 * 8 + (12 + 2) * 8**2 == 13_184
