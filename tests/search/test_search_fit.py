"""Candidates fitted to weight updates: what they can be is reached, and what is said of it is right."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from commands import quanta
from safetensors.torch import save_file

from quanta_compiler.driver import compile_circuit
from quanta_compiler.search import run
from quanta_compiler.search.fit import FitOptions, FitTask, Updates, find_updates, run_fit

CHAIN = {
    "version": 1,
    "name": "chain",
    "layout": [4, 4, 2],
    "gates": [[0, 1], [1, 2]],
    "init": "orthogonal",
}
WIDTH = 32
FIT = ("search", "--in", "32", "--out", "32", "--max-parameters", "500", "--gates", "1-3", "--jobs", "1", "--fit")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(WIDTH, WIDTH, generator=generator)
    module = compile_circuit(CHAIN).module(seed=7)
    update = 0.01 * module.operator().detach()  # type: ignore[operator]
    low = torch.randn(WIDTH, 2, generator=generator) @ torch.randn(2, WIDTH, generator=generator)
    save_file({"a.weight": base, "b.weight": base.clone(), "bias": torch.zeros(WIDTH)}, "base.safetensors")
    tensors = {"a.weight": base + update, "b.weight": base + low, "bias": torch.zeros(WIDTH), "c": torch.zeros(3, 5)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, "tuned.safetensors")


def options(*keys: str) -> FitOptions:
    return FitOptions(Updates(Path("tuned.safetensors"), Path("base.safetensors"), keys))


def test_a_circuit_becomes_what_it_can_be() -> None:
    # The update is 1e-2 times a circuit of this very form; beside its base it is known to a few digits only.
    fit = run_fit(options("a.weight"), FitTask(CHAIN, "a.weight"))
    assert fit.error < 0.01 < fit.lora_error


def test_lora_is_that_of_the_singular_values() -> None:
    fit = run_fit(
        FitOptions(Updates(Path("tuned.safetensors"), None, ("b.weight",)), steps=1), FitTask(CHAIN, "b.weight")
    )
    from safetensors.torch import load_file

    weight = load_file("tuned.safetensors")["b.weight"].double()
    rank = (256 + 64) // (2 * WIDTH)
    left, values, right = torch.linalg.svd(weight)
    best = left[:, :rank] * values[:rank] @ right[:rank]
    assert fit.lora_rank == rank
    assert math.isclose(fit.lora_error, float((weight - best).norm() / weight.norm()), rel_tol=1e-6)
    # An update of rank 2 leaves LoRA nothing to miss.
    assert run_fit(options("b.weight"), FitTask(CHAIN, "b.weight")).lora_error < 1e-5


def test_the_front_is_fitted_and_gone_on_with() -> None:
    words = (*FIT, "tuned.safetensors", "--base", "base.safetensors", "--most", "2", "--steps", "5")
    result = quanta(*words)
    assert result.exit_code == 0, result.stderr
    assert "LoRA's error" in result.stdout
    front = json.loads(Path("search-32-32/front.json").read_text())["front"]
    for row in front:
        fits = row["fit"]["updates"]
        assert [fit["name"] for fit in fits] == [f"{row['name']}/{key}" for key in ("a.weight", "b.weight")]
        mean = math.sqrt(sum(fit["error"] ** 2 for fit in fits) / 2)
        assert math.isclose(row["fit"]["relative_error"], mean)
    journal = Path("search-32-32/journal.jsonl")
    before, lines = Path("search-32-32/front.json").read_bytes(), journal.read_bytes().splitlines(keepends=True)
    assert quanta(*words, "--resume").exit_code == 0
    assert journal.read_bytes() == b"".join(lines)
    # One fit is lost: that one is done again, with the same result.
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:10])
    assert quanta(*words, "--resume").exit_code == 0
    assert journal.read_bytes() == b"".join(lines)
    assert Path("search-32-32/front.json").read_bytes() == before
    # Other steps are another fit.
    assert quanta(*words[:-1], "6", "--resume").exit_code == 0
    assert len(journal.read_bytes().splitlines()) == len(lines) + 4


def test_fits_that_the_time_does_not_suffice_for(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*FIT, "tuned.safetensors", "--key", "b.weight", "--steps", "2", "--most", "1")
    search = (*FIT[:-1], "--most", "1")
    assert quanta(*search).exit_code == 0
    result = quanta(*words, "--resume", "--time", "0")
    assert result.exit_code == 0
    assert "the time was over before all 1 fits were done" in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing.safetensors"], "there is no such file"),
        (["tuned.safetensors", "--key", "a.wieght"], "there is no tensor 'a.wieght'"),
        (["tuned.safetensors", "--key", "c"], "it is 3 x 5, the layer's weight is 32 x 32 (out x in)"),
        (["tuned.safetensors", "--in", "16"], "it has no matrix of 32 x 16 (out x in)"),
        (["tuned.safetensors", "--base", "tuned.safetensors"], "it is zero beside its base"),
        (["mixed.safetensors", "--key", "same"], "it is zero"),
        (["broken.safetensors"], "it holds numbers that are not finite"),
        (["model.safetensors.index.json"], "it is the index of a sharded checkpoint"),
        (["model.safetensors.index.json", "--key", "a"], "give the shard that holds the key (2.safetensors)"),
        (["base.safetensors", "--base", "other.safetensors"], "the base has no tensor 'a.weight'"),
    ],
)
def test_updates_that_cannot_be(words: list[str], sentence: str) -> None:
    save_file({"a": torch.zeros(WIDTH, WIDTH)}, "other.safetensors")
    save_file({"same": torch.zeros(WIDTH, WIDTH), "new": torch.ones(WIDTH, WIDTH)}, "mixed.safetensors")
    save_file({"a": torch.full((WIDTH, WIDTH), torch.inf)}, "broken.safetensors")
    Path("model.safetensors.index.json").write_text('{"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}')
    result = quanta(*FIT, *words)
    assert result.exit_code == 1
    # What is wrong with the updates is told before anything is searched.
    assert not Path("search-32-32").exists()
    assert sentence in result.stderr
    assert result.stderr.count("\n") <= 2


def test_a_matrix_that_did_not_change_is_left_out() -> None:
    save_file({"same": torch.zeros(WIDTH, WIDTH), "new": torch.ones(WIDTH, WIDTH)}, "mixed.safetensors")
    result = quanta(*FIT, "mixed.safetensors", "--steps", "1", "--most", "1")
    assert result.exit_code == 0
    assert "note: not fitted, since it is zero: same\n" in result.stderr
    (row,) = json.loads(Path("search-32-32/front.json").read_text())["front"]
    assert [fit["name"] for fit in row["fit"]["updates"]] == [f"{row['name']}/new"]


def test_the_front_is_written_before_it_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: FitOptions, task: FitTask) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_fit", broken)
    assert quanta(*FIT, "tuned.safetensors", "--most", "2").exit_code != 0
    assert len(json.loads(Path("search-32-32/front.json").read_text())["front"]) == 2


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_squares_of_an_update_need_not_be_numbers_of_float32(scale: float) -> None:
    module = compile_circuit(CHAIN).module(seed=7)
    save_file({"w": (scale * module.operator().detach()).contiguous()}, "scaled.safetensors")  # type: ignore[operator]
    updates = find_updates(Path("scaled.safetensors"), None, (), WIDTH, WIDTH)
    assert run_fit(FitOptions(updates), FitTask(CHAIN, "w")).error < 0.01


def test_a_fit_that_is_no_better_than_nothing_is_not_marked() -> None:
    words = ("tuned.safetensors", "--key", "b.weight", "--most", "1", "--steps", "1", "--learning-rate", "1e30")
    result = quanta(*FIT, *words)
    assert result.exit_code == 0
    assert "   1   " in result.stdout
    assert "*1 " not in result.stdout
