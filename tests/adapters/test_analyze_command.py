"""`quanta analyze`: what it prints, draws and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import quanta
from lora_folders import diagonal_lora, save_lora
from paper_checkpoints import generator, paper_layer
from safetensors.torch import load_file, save_file

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loras(blocks: tuple[int, ...] = (0, 2, 10)) -> None:
    """Save two adapters: the same first direction in each layer, then others."""
    names = [f"model.layers.{block}.self_attn.{kind}" for block in blocks for kind in ("q_proj", "v_proj")]
    first = {name: diagonal_lora([3, 2, 1], [0, 1, 2], (6, 8)) for name in names}
    other = {name: diagonal_lora([4, 2, 1, 0.5], [0, 2, 5, 6], (6, 8)) for name in names[:-1]}
    save_lora(Path("first"), first, 3)
    save_lora(Path("other"), other, 4, lora_alpha=8)


def imported() -> None:
    state = paper_layer("m.q", (4, 3, 2), generator(0)) | paper_layer("m.v", (4, 3, 2), generator(1))
    save_file(state, "state.safetensors")
    assert quanta("import", "state.safetensors", "-o", "ours").exit_code == 0


def test_two_adapters_as_text(golden: Golden) -> None:
    loras()
    result = quanta("analyze", "first", "other")
    assert (result.exit_code, result.stderr) == (0, "")
    golden("cli/analyze.txt", result.stdout)


def test_two_adapters_as_json() -> None:
    loras()
    data = json.loads(quanta("analyze", "first", "other", "--json", "--layers", r"\.2\..*q_proj", "--top", "2").stdout)
    first, other = data["adapters"]
    (layer,) = first["layers"]
    assert layer["layer"] == "model.layers.2.self_attn.q_proj"
    assert (layer["in_features"], layer["out_features"], layer["rank"]) == (8, 6, 3)
    assert layer["singular_values"] == pytest.approx([3, 2])
    assert layer["frobenius_norm"] == pytest.approx(14**0.5)
    assert layer["stable_rank"] == pytest.approx(14 / 9)
    # alpha / r is 2.
    assert other["layers"][0]["singular_values"] == pytest.approx([8, 4])
    (similarity,) = data["similarities"]
    phi = {(point["i"], point["j"]): point["phi"] for point in similarity["phi"]}
    assert phi == pytest.approx({(1, 1): 1.0, (1, 2): 1.0, (2, 1): 1.0, (2, 2): 0.5})


def test_ours_beside_lora_and_ours() -> None:
    imported()
    save_lora(Path("lora"), {"m.q": diagonal_lora([1], [0], (24, 24))}, 1)
    data = json.loads(quanta("analyze", "ours", "lora", "ours", "--json").stdout)
    assert [adapter["description"] for adapter in data["adapters"]] == [
        "circuit quanta-4-3-2, residual frozen_copy",
        "LoRA, r = 1, alpha = 1",
        "circuit quanta-4-3-2, residual frozen_copy",
    ]
    assert [(one["layer"], one["adapters"]) for one in data["similarities"]] == [
        ("m.q", [0, 1]),
        ("m.q", [0, 2]),
        ("m.v", [0, 2]),
    ]
    same = [point["phi"] for point in data["similarities"][1]["phi"]]
    assert same == pytest.approx([1.0] * len(same))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("picture.svg", b"<?xml"),
        ("picture.html", b"<!doctype html>"),
        ("picture.png", b"\x89PNG"),
        pytest.param("picture.pdf", b"%PDF", marks=pytest.mark.slow),
        ("PICTURE.PNG", b"\x89PNG"),
    ],
)
def test_pictures(name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    # Drawing takes long, by the panel: every sort of them is in one of the pictures.
    loras((0, 2) if name == "picture.svg" else (2,))
    result = quanta("analyze", "first", "other", "-o", name)
    assert (result.exit_code, result.stderr) == (0, f"{name}\n")
    data = Path(name).read_bytes()
    assert data.startswith(start)
    assert quanta("analyze", "first", "other", "-o", name).exit_code == 0
    assert_alike(Path(name).read_bytes(), data)
    assert sorted(path.name for path in Path().iterdir()) == sorted(["first", "other", name])


def assert_alike(picture: bytes, other: bytes) -> None:
    """Compare two pictures, an SVG to a thousandth: matplotlib before 3.11 lays out with an error of its own."""
    if not picture.startswith(b"<?xml"):
        assert picture == other
        return
    number = rb"-?\d+\.\d+"
    assert re.sub(number, b"", picture) == re.sub(number, b"", other)
    assert [float(one) for one in re.findall(number, picture)] == pytest.approx(
        [float(one) for one in re.findall(number, other)], abs=1e-3
    )


def test_a_page_holds_picture_and_tables_and_loads_nothing() -> None:
    pytest.importorskip("matplotlib")
    loras()
    quanta("analyze", "first", "other", "-o", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert page.count("<table>") == 3
    assert "model.layers.10.self_attn.q_proj" in page
    assert "<script" not in page
    assert 'src="http' not in page


@pytest.mark.parametrize("is_drawn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_has_no_room_in_the_picture_is_told(is_drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    if not is_drawn:
        monkeypatch.setattr("quanta_compiler.adapters.pictures.render", lambda *_: b"<svg/>")
    layers = {f"layers.{block}.{kind}": diagonal_lora([1], [0], (2, 3)) for block in range(30) for kind in "abcdefghij"}
    save_lora(Path("one"), layers, 1)
    result = quanta("analyze", "one", "one", "-o", "picture.svg")
    assert result.exit_code == 0
    assert result.stderr == (
        "picture.svg: warning: the picture has 8 of 10 kinds of layers\n"
        "  hint: choose them with --layers\n"
        "picture.svg: warning: the picture has the similarity of 10 of 300 layers, evenly spaced\n"
        "  hint: choose them with --layers\n"
        "picture.svg\n"
    )


def test_an_untrained_adapter_and_layers_without_numbers_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    save_lora(Path("zero"), {"q": diagonal_lora([0], [0], (2, 3)), "v": diagonal_lora([1], [0], (2, 3))}, 1)
    save_lora(Path("one"), {"q": diagonal_lora([1], [0], (2, 3))}, 1)
    result = quanta("analyze", "zero", "one", "-o", "picture.svg", "--json")
    assert (result.exit_code, result.stderr) == (0, "picture.svg\n")
    assert json.loads(result.stdout)["adapters"][0]["layers"][0]["effective_rank"] == 0.0
    assert quanta("analyze", "zero", "one").exit_code == 0


def _break(change: str) -> None:
    """Damage one of the adapters `first` (LoRA) and `ours`."""
    weights = Path("ours/adapter_model.safetensors")
    tensors = load_file(weights)
    prefix = "base_model.model.m.q.quanta_circuit_"
    settings = json.loads(Path("first/adapter_config.json").read_text())
    if change == "missing gate":
        del tensors[f"{prefix}delta.g1"]
    elif change == "missing features":
        del tensors[f"{prefix}features"]
    elif change == "shape":
        tensors[f"{prefix}delta.g1"] = torch.zeros(2, 2)
    elif change == "nan":
        tensors[f"{prefix}frozen.g0"][0, 0] = float("nan")
    elif change == "lora rank":
        settings["r"] = 5
    elif change == "dora":
        settings["use_dora"] = True
    elif change == "method":
        settings["peft_type"] = "LOHA"
    elif change == "lora nan":
        save_lora(Path("first"), {"m.q": diagonal_lora([float("nan")], [0], (24, 24))}, 1)
        return
    elif change == "embedding":
        save_lora(Path("first"), {"emb": {"lora_embedding_A": torch.zeros(1, 5)}}, 1)
        return
    elif change == "other model":
        save_lora(Path("first"), {"m.q": diagonal_lora([1], [0], (24, 25))}, 1)
        return
    Path("first/adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, weights)


BROKEN = (
    *("missing gate", "missing features", "shape", "nan", "lora rank", "dora", "method", "lora nan"),
    *("embedding", "other model", "no common layer"),
)


def test_every_mistake_is_told(golden: Golden) -> None:
    imported()
    loras()
    kept = {path: path.read_bytes() for folder in ("ours", "first") for path in Path(folder).iterdir()}
    texts = []
    for change in BROKEN:
        for path, data in kept.items():
            path.write_bytes(data)
        _break(change)
        result = quanta("analyze", "ours", "first", "-o", "picture.svg")
        assert (result.exit_code, result.stdout) == (1, ""), change
        assert not Path("picture.svg").exists()
        texts.append(f"# {change}\n{result.stderr}")
    golden("cli/analyze_errors.txt", "\n".join(texts))


def test_a_circuit_that_was_changed_by_hand_is_refused() -> None:
    imported()
    config = Path("ours/adapter_config.json")
    config.write_text(config.read_text().replace("quanta-4-3-2", "mine"))
    result = quanta("analyze", "ours")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ours/adapter_config.json: ")
    assert "circuit_hash" in result.stderr
    assert "\n  hint: " in result.stderr


def test_places_that_are_no_adapter() -> None:
    loras()
    Path("empty").mkdir()
    Path("run/default").mkdir(parents=True)
    Path("run/default/adapter_config.json").write_text("{}")
    Path("text").mkdir()
    Path("text/adapter_config.json").write_text("not json")
    Path("pickle").mkdir()
    Path("pickle/adapter_config.json").write_text('{"peft_type": "LORA"}')
    Path("pickle/adapter_model.bin").write_text("")
    cut = Path("first/adapter_model.safetensors")
    cut.write_bytes(cut.read_bytes()[:-5])
    starts = {
        "nowhere": "nowhere: there is no such folder\n",
        "first/adapter_config.json": "first/adapter_config.json: it is a file\n",
        "empty": "empty: it is no saved adapter: it has no adapter_config.json\n",
        "run": "run: it is no saved adapter: it has no adapter_config.json\n  hint: there are adapters inside: 'run/",
        "text": "text/adapter_config.json: it is no JSON: ",
        "pickle": "pickle: the weights are a pickle, adapter_model.bin; only safetensors are read\n",
        "first": "first/adapter_model.safetensors: it is no safetensors file, or a damaged one: ",
    }
    for folder, start in starts.items():
        result = quanta("analyze", folder)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(start), result.stderr


@pytest.mark.parametrize("command", ["import", "analyze"])
def test_help_is_plain_text_in_a_pipe(command: str) -> None:
    result = quanta(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "--json" in result.stdout


def test_a_pattern_that_finds_no_layer() -> None:
    loras()
    result = quanta("analyze", "first", "--layers", "mlp")
    assert result.exit_code == 1
    assert "--layers 'mlp' finds none of its layers: 'model.layers.0.self_attn.q_proj'" in result.stderr


@pytest.mark.parametrize(
    "options",
    [["-o", "picture.gif"], ["-o", "picture"], ["--layers", "("], ["--top", "0"], ["--device", "abacus"]],
    ids=" ".join,
)
def test_wrong_usage(options: list[str]) -> None:
    loras()
    assert quanta("analyze", "first", *options).exit_code == 2


def test_lora_needs_neither_peft_nor_matplotlib() -> None:
    loras()
    code = """
import sys
from quanta_compiler.cli.app import app
assert "torch" not in sys.modules
try:
    app(["analyze", "first", "other"])
except SystemExit as error:
    assert not error.code, error.code
assert not {"peft", "transformers", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
