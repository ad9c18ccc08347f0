"""What is recommended: never over the budget, taken by PEFT as it is printed, ordered as it says."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import quanta
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from quanta_compiler.compare.figures import Conditions
from quanta_compiler.models.hub import model_folder
from quanta_compiler.models.layers import ModelError, ModelLayers, TargetLayer
from quanta_compiler.peft import QuantaConfig
from quanta_compiler.predict.calibration import load_calibration
from quanta_compiler.recommend import recommend
from quanta_compiler.recommend.budget import Alike, parse_budget
from quanta_compiler.recommend.candidates import CANDIDATES, trained_numbers
from quanta_compiler.text.counts import count_of
from quanta_compiler.text.quantities import percent_text

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 60,
}
CONDITIONS = Conditions(2048, "auto", load_calibration())
SHAPES = ((96, 96), (96, 32), (96, 256), (251, 96))


def model_of(*shapes: tuple[int, int], parameters: int = 1_000_000) -> ModelLayers:
    layers = tuple(
        TargetLayer(f"blocks.{place}.m{i}_proj", *shape) for place in (0, 1) for i, shape in enumerate(shapes)
    )
    return ModelLayers("made-up", parameters, 2, 96, 256, 6, 16, 32, layers)


@pytest.fixture(autouse=True)
def _typical_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(name="llama")
def llama_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return folder


@pytest.mark.parametrize("budget", ["900", "3k", "10k", "2%", "100%"])
def test_no_family_is_over_the_budget(budget: str) -> None:
    model = model_of(*SHAPES)
    made = recommend(model, parse_budget(budget), CONDITIONS)
    assert {one.family for one in made.choices} | set(made.left_out) == {one.name for one in CANDIDATES}
    shapes = Counter((layer.in_features, layer.out_features) for layer in model.layers)
    for choice in made.choices:
        counted = sum(trained_numbers(choice.circuits[shape], Alike(shape, count)) for shape, count in shapes.items())
        # Layers of two shapes may have a matrix together too.
        assert choice.row.trainable <= counted <= made.numbers
        assert choice.row.trainable == counted or choice.family == "lotr"


def test_lora_has_the_largest_rank_that_fits() -> None:
    model = model_of(*SHAPES)
    widths = sum(layer.in_features + layer.out_features for layer in model.layers)
    lora = recommend(model, parse_budget(str(5 * widths + 7)), CONDITIONS).choice("lora")
    assert lora is not None
    assert {document["rank"] for document in lora.circuits.values()} == {5}


def test_what_rounding_leaves_over_is_used_where_more_fits() -> None:
    model = model_of((96, 96), (96, 32), (32, 96))
    widths = sum(layer.in_features + layer.out_features for layer in model.layers)
    # Rank 3 for all, and one more for the first that it fits.
    budget = 3 * widths + 2 * 192 + 100
    lora = recommend(model, parse_budget(str(budget)), CONDITIONS).choice("lora")
    assert lora is not None
    assert {shape: one["rank"] for shape, one in lora.circuits.items()} == {(96, 96): 4, (96, 32): 3, (32, 96): 3}
    assert lora.row.trainable == budget - 100


def test_no_layer_gets_over_twice_its_share() -> None:
    layers = (*(TargetLayer(f"b.{place}.proj", 96, 96) for place in range(20)), TargetLayer("head", 96, 192))
    model = ModelLayers("m", 10**6, 20, 96, 96, 4, 16, 64, layers)
    lora = recommend(model, parse_budget(str(3 * 20 * 192 + 2 * 288 - 1)), CONDITIONS).choice("lora")
    assert lora is not None
    assert {shape: one["rank"] for shape, one in lora.circuits.items()} == {(96, 96): 2, (96, 192): 5}


def test_the_table_says_how_much_of_the_budget_is_used(llama: Path) -> None:
    command = ("recommend", "--model", str(llama), "--targets", "q_proj,v_proj", "--budget", "10k")
    assert "of the update alone, without the frozen layer" in quanta(*command).stdout
    table, data = quanta(*command).stdout, json.loads(quanta(*command, "--json").stdout)
    for choice in data["choices"]:
        trained = choice["trainable"]
        assert re.search(rf"  {choice['family']} +{trained:,} +{percent_text(trained / 100)} ", table)


def test_a_family_that_nothing_fits_says_what_it_needs() -> None:
    model = model_of((96, 96))
    made = recommend(model, parse_budget("900"), CONDITIONS)
    needed = int(made.left_out["quanta, 4 axes"].split()[-2].replace(",", ""))
    assert recommend(model, parse_budget(str(needed)), CONDITIONS).choice("quanta, 4 axes") is not None
    assert recommend(model, parse_budget(str(needed - 1)), CONDITIONS).choice("quanta, 4 axes") is None


def test_the_first_choice_follows_the_rule_and_the_others_their_rank() -> None:
    made = recommend(model_of((4096, 4096), (4096, 1024), parameters=10**9), parse_budget("0.05%"), CONDITIONS)
    first, *others = made.choices
    best = max((one.rank_share for one in made.choices if one.row.connected), default=0.0)
    limit = made.slower * (made.reference.step_seconds or 0)
    rivals = [
        one
        for one in made.choices
        if one.row.connected and one.rank_share == best and (one.row.step_seconds or 0) <= limit
    ]
    assert first.row.trainable == max(one.row.trainable for one in rivals)
    keys = [(not one.row.connected, -one.rank_share, one.row.step_seconds or 0) for one in others]
    assert keys == sorted(keys)


@pytest.mark.parametrize("written", [False, True])
def test_the_printed_configuration_trains_the_numbers_of_the_table(written: bool, llama: Path, tmp_path: Path) -> None:
    command = ["recommend", "--model", str(llama), "--targets", "q_proj,v_proj,up_proj", "--budget", "3%"]
    done = quanta(*command, *(["-o", str(tmp_path / "circuits")] if written else []))
    assert done.exit_code == 0, done.output
    text = done.stdout[done.stdout.index("from quanta_compiler.peft") :]
    assert ("circuits/quanta" in text) == written
    names: dict[str, Any] = {}
    exec(text, names)
    config = names["config"]
    assert isinstance(config, QuantaConfig)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(llama))
        adapted = get_peft_model(base, config)
    assert "# Start with AdamW's learning rate 0.003, scale=1 and residual='folded':" in text
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    data = json.loads(quanta(*command, "--json").stdout)
    assert trained == data["choices"][0]["trainable"] <= data["budget"]["parameters"]


def test_every_choice_is_written_as_a_file(llama: Path, tmp_path: Path) -> None:
    command = ["recommend", "--model", str(llama), "--budget", "4k", "-o", str(tmp_path / "out"), "--json"]
    data = json.loads(quanta(*command).stdout)
    documents = [one["circuit"] for choice in data["choices"] for one in choice["circuits"]]
    files = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (tmp_path / "out").iterdir()}
    assert {one["name"] for one in documents} == set(files)
    widths = ("in_features", "out_features")
    for one in documents:
        written = json.loads(json.dumps(files[one["name"]]))
        assert {key: value for key, value in written.items() if key not in widths} == one
    assert {choice["family"] for choice in data["choices"]} <= {one.name for one in CANDIDATES}
    assert (data["chosen"], set(data["files"])) == (data["choices"][0]["family"], set(files))
    # What somebody has written is kept, unless it is asked for.
    path = tmp_path / "out" / f"{documents[0]['name']}.yaml"
    ours = path.read_text("utf-8")
    path.write_text("# mine\n", encoding="utf-8")
    assert quanta(*command).exit_code == 1
    assert path.read_text("utf-8") == "# mine\n"
    assert quanta(*command, "--force").exit_code == 0
    assert path.read_text("utf-8") == ours
    assert quanta(*command).exit_code == 0


def test_circuits_are_no_larger_than_their_layers() -> None:
    model = model_of((24, 24), parameters=1_000_000)
    for choice in recommend(model, parse_budget("100%"), CONDITIONS).choices:
        assert trained_numbers(choice.circuits[24, 24], Alike((24, 24), 2)) <= 2 * 24 * 24


def test_the_rule_says_where_nothing_is_quick_enough() -> None:
    made = recommend(model_of((4096, 4096), parameters=10**9), parse_budget("0.05%"), CONDITIONS, slower=0.1)
    assert made.rule.endswith("the quickest: none of them keeps to --slower")


@pytest.mark.parametrize("name", ["foo/-bar", "foo/bar.git", "x" * 5000])
def test_what_is_no_name_of_a_model_is_refused(name: str) -> None:
    result = quanta("recommend", "--model", name, "--budget", "1k")
    assert result.exit_code == 1
    assert "is n" in result.stderr


def test_targets_of_one_name_and_two_shapes_are_told_apart() -> None:
    layers = (TargetLayer("a.0.proj", 64, 64), TargetLayer("a.1.proj", 64, 32), TargetLayer("a.2.proj", 64, 64))
    made = recommend(ModelLayers("m", 10**6, 3, 64, 64, 4, 16, 64, layers), parse_budget("3k"), CONDITIONS)
    assert [group.target for group in made.groups] == [r"(?:0|2)\.proj", "1.proj"]


@pytest.mark.parametrize(
    ("text", "count"),
    [("50000", 50000), ("50k", 50000), ("1.5M", 1500000), ("1_000", 1000), ("2,048", 2048), ("1.1k", 1100)],
)
def test_counts_are_read_as_people_write_them(text: str, count: int) -> None:
    assert count_of(text) == count


@pytest.mark.parametrize("text", ["", "k", "1.5", "-3", "1e6", "12k5", "1.2345k"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no count: write digits"):
        count_of(text)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (("--budget", "lots"), "is no budget"),
        (("--budget", "0"), "leaves nothing to train"),
        (("--budget", "101%"), "is more than the model has"),
        (("--budget", "3"), "no family has a circuit under 3 numbers"),
        (("--budget", "4k", "--family", "quant"), "is not among the choices"),
        (("--budget", "900", "--family", "quanta, 3 axes"), "and the budget is 900: give a larger --budget, or fewer"),
        (("--budget", "4k", "--device", "tpu"), "tpu"),
        (("--budget", "4k", "--targets", "q_prj"), "did you mean 'q_proj'"),
    ],
)
def test_wrong_input_is_one_error(options: tuple[str, ...], fact: str, llama: Path, tmp_path: Path) -> None:
    done = quanta("recommend", "--model", str(llama), *options, "-o", str(tmp_path / "out"))
    assert done.exit_code in (1, 2)
    assert fact in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_hub_that_cannot_be_reached_says_what_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[float] = []

    def nothing_here(*_: object, local_files_only: bool) -> str:
        raise LocalEntryNotFoundError("not here")

    def offline(_: str, timeout: float) -> None:
        asked.append(timeout)
        raise OSError(reason)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing_here)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    reason = "no route to host\nand more"
    with pytest.raises(
        ModelError, match=r"no folder 'org/name', and the Hub cannot be reached \(no route to host\)$"
    ) as caught:
        model_folder("org/name")
    assert caught.value.hint is not None
    assert "--model DIR, by `hf download org/name config.json --local-dir DIR` where" in caught.value.hint
    # A cause that is too long is named, not cut off; a model whose shapes are in the repository is found there.
    reason = "no route " * 99
    with pytest.raises(ModelError, match=r"the Hub cannot be reached \(OSError\)$") as caught:
        model_folder("Meta-Llama/Llama-3.2-1B")
    assert str(caught.value.hint).endswith(os.path.join("examples", "models", "llama-3.2-1b"))
    # Once, and not for long.
    assert len(asked) == 2
    assert max(asked) <= 5


def test_a_model_of_the_hub_is_its_config_alone(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    import huggingface_hub

    asked: list[tuple[str, ...]] = []

    def download(*names: str, local_files_only: bool = False) -> str:
        asked.append(names)
        return str(llama / "config.json")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert model_folder("org/name") == llama
    assert asked == [("org/name", "config.json")]
    assert model_folder(str(llama)) == llama
