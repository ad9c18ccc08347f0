"""Popular architectures, by the shapes in examples/models: each is answered within the budget, or refused in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import quanta
from peft import get_peft_model
from transformers import AutoConfig

from quanta_compiler.cli.model_layers import target_modules
from quanta_compiler.models.layers import ModelError, read_config
from quanta_compiler.peft.targeted import _architecture, read_model
from quanta_compiler.recommend.configuration import groups_of

MODELS = Path(__file__).parents[2] / "examples" / "models"
PUBLISHED = {
    "bart-base": 139_420_416,
    "bert-base": 109_482_240,
    "bloom-560m": 559_214_592,
    "clip-vit-base": 151_277_313,
    "deberta-v3-base": 183_831_552,
    "deepseek-v2-lite": 15_706_484_224,
    "dinov2-base": 86_580_480,
    "distilbert-base": 66_985_530,
    "falcon-7b": 6_921_720_704,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 4_300_079_472,
    "gpt-oss-20b": 20_914_757_184,
    "gpt2": 124_439_808,
    "granite-3.3-2b": 2_533_539_840,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "mamba-1.4b": 1_372_178_432,
    "mistral-7b-v0.3": 7_248_023_552,
    "mixtral-8x7b": 46_702_792_704,
    "modernbert-base": 149_655_232,
    "olmo-2-7b": 7_298_617_344,
    "opt-1.3b": 1_315_758_080,
    "phi-3-mini": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "pythia-1.4b": 1_414_647_808,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-8b": 8_190_735_360,
    "roberta-base": 124_697_433,
    "smollm2-1.7b": 1_711_376_384,
    "smollm2-135m": 134_515_008,
    "t5-small": 60_506_624,
    "vit-base": 86_567_656,
    "wav2vec2-base": 95_044_608,
    "whisper-small": 241_734_912,
}
"""The parameters that the models' authors give, or that their published checkpoints hold, tied ones once."""
QUICK = ("gpt2", "modernbert-base", "t5-small")
COMMANDS = (("recommend", "--budget", "0.05%"), ("compare", "-b", "lora:8", "-b", "quanta"))
SCRIPT = """
import sys
from quanta_compiler.cli.app import app
for model in sys.argv[1:]:
    for command in (["recommend", "--budget", "0.5%"], ["compare", "-b", "lora:8", "-b", "quanta"]):
        app([*command, "--model", model, "--targets", "all-linear"], standalone_mode=False)
"""
OUR_WORDS = ("note: ", "the first is ", "quanta: ", "  hint: ")
HALF_READ = ("mamba-1.4b",)
"""Most of their linear layers are read past adapters."""


def models(*quick: str) -> list[Any]:
    """Return all names, those that are not quick marked as slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]


@pytest.fixture(autouse=True)
def _typical_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))


def test_every_configuration_that_is_shipped_is_looked_at() -> None:
    assert sorted(path.name for path in MODELS.iterdir() if path.is_dir()) == sorted(PUBLISHED)


def usual_options(name: str) -> list[str]:
    """Return the targets that a user of the model gives: none where PEFT has some, else what the refusal says."""
    try:
        read_model(MODELS / name, None)
    except ModelError as error:
        return (error.hint or "").removeprefix("take `").removesuffix("`").split()
    return []


@pytest.mark.parametrize("name", models(*QUICK))
def test_a_configuration_has_the_published_parameters(name: str) -> None:
    *_, targets = [None, *usual_options(name)]
    assert read_model(MODELS / name, target_modules(targets)).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", models(*QUICK))
def test_a_popular_model_is_answered_or_refused_with_the_command_that_answers(name: str) -> None:
    model, options = ("--model", str(MODELS / name)), usual_options(name)
    for command in COMMANDS:
        if options:
            refused = quanta(*command, *model)
            assert (refused.exit_code, refused.stdout) == (1, "")
            assert "PEFT has no default targets for models of type" in refused.stderr
            assert " ".join(options) in refused.stderr
        done = quanta(*command, *model, *options)
        assert done.exit_code == 0, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", models("gpt2", "modernbert-base"))
def test_the_configuration_for_a_popular_model_is_for_its_targets_and_no_other_layers(name: str) -> None:
    everything = [] if name in HALF_READ else [("0.5%", ["--targets", "all-linear"])]
    for budget, options in (("0.05%", usual_options(name)), *everything):
        data = recommended(name, budget, *options)
        first = data["choices"][0]
        assert 0 < first["trainable"] <= data["budget"]["parameters"]
        assert trained_by(name, first["configuration"]) == (
            first["trainable"],
            sum(group["layers"] for group in data["targets"]),
        )


def recommended(name: str, budget: str, *options: str) -> dict[str, Any]:
    done = quanta("recommend", "--model", str(MODELS / name), "--budget", budget, *options, "--json")
    assert done.exit_code == 0, done.output
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def trained_by(name: str, configuration: str) -> tuple[int, int]:
    """Return how many numbers train in the model adapted as printed, and how many layers and experts are adapted."""
    names: dict[str, Any] = {}
    exec(f"from quanta_compiler.peft import QuantaConfig\nconfig = {configuration}", names)
    config = AutoConfig.from_pretrained(MODELS / name)
    with torch.device("meta"):
        adapted = get_peft_model(_architecture(config)(config), names["config"])
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    layers = [module for module in adapted.modules() if getattr(module, "quanta_circuit_plan", None)]
    return trained, sum(getattr(layer, "experts", 1) for layer in layers)


@pytest.mark.parametrize(
    ("targets", "target"),
    [
        (r".*\.h\.[0-3]\.attn\.c_attn", r"(?:0|1|2|3)\.attn\.c_attn"),
        (r".*\.attn\.c_proj", "attn.c_proj"),
        ("h.3.mlp.c_fc,h.7.mlp.c_fc", r"(?:3|7)\.mlp\.c_fc"),
    ],
)
def test_the_configuration_for_some_of_the_layers_is_for_no_others(targets: str, target: str) -> None:
    data = recommended("gpt2", "0.5%", "--targets", targets)
    first, group = data["choices"][0], data["targets"][0]
    assert group["target"] == target
    assert trained_by("gpt2", first["configuration"]) == (first["trainable"], group["layers"])


def test_targets_of_several_shapes_are_told_apart_by_the_shortest_end() -> None:
    groups = groups_of(read_model(MODELS / "clip-vit-base", ["q_proj", "fc1"]))
    assert [(group.target, group.in_features) for group in groups] == [
        (r"text_model\.encoder\.layers\.\d+\.self_attn\.q_proj", 512),
        (r"text_model\.encoder\.layers\.\d+\.mlp\.fc1", 512),
        (r"vision_model\.encoder\.layers\.\d+\.self_attn\.q_proj", 768),
        (r"vision_model\.encoder\.layers\.\d+\.mlp\.fc1", 768),
    ]


def test_experts_that_are_one_tensor_are_said_to_get_no_circuit() -> None:
    model = ("--model", str(MODELS / "gpt-oss-20b"))
    fact = "experts that get no circuit, because their matrices are not stored as those of linear layers"
    for command in COMMANDS:
        done = quanta(*command, *model, "--targets", "all-linear")
        assert done.exit_code == 0
        assert f"the targets mean {fact}" in done.stderr
        assert fact not in quanta(*command, *model).stderr
        refused = quanta(*command, *model, "--targets", "gate_proj")
        assert refused.exit_code == 1
        assert f"is called 'gate_proj': it means {fact}" in refused.stderr


def test_layers_that_are_read_past_adapters_are_refused_as_adapters_refuse_them() -> None:
    for command in COMMANDS:
        done = quanta(*command, "--model", str(MODELS / "mamba-1.4b"), "--targets", "all-linear")
        assert done.exit_code == 1
        assert "x_proj of state-spaces/mamba-1.4b-hf belongs to transformers's MambaMixer, which reads" in done.stderr
        assert "hint: there is in_proj, lm_head" in done.stderr


@pytest.mark.parametrize("names", [["gpt2"], pytest.param(list(PUBLISHED), marks=pytest.mark.slow)], ids=["one", "all"])
def test_nothing_but_our_own_words_is_on_stderr(names: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, *(str(MODELS / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if not line.startswith(OUR_WORDS)] == []
    assert done.returncode == 0
    assert all(read_config(MODELS / name)["_name_or_path"] in done.stdout for name in names if name not in HALF_READ)


@pytest.mark.slow
def test_the_table_of_the_documentation_is_what_its_script_makes(tmp_path: Path) -> None:
    made = tmp_path / "recommended.md"
    subprocess.run([sys.executable, str(MODELS / "recommended.py"), "-o", str(made)], check=True)
    committed = MODELS.parents[1] / "docs" / "recommended.md"
    assert committed.read_text(encoding="utf-8") == made.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_newcomer_gets_from_a_model_to_a_merged_one(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "newcomer.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "merged: LlamaForCausalLM" in done.stdout
