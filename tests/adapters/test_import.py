"""`quanta import`: checkpoints of the paper's code against its own forward pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import quanta
from paper_checkpoints import State, generator, paper_layer, paper_update
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from quanta_compiler.adapters.saved import read_adapter

CPU = torch.device("cpu")
LAYOUT = (4, 3, 2)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_agrees(state: State, prefix: str, layout: tuple[int, ...], module: str, scale: float = 1.0) -> None:
    """Compare the imported update of a layer with the paper's forward pass in float64, relative to the norm."""
    update = read_adapter(Path("adapter")).updates[module].matrix(CPU)
    out_features, in_features = update.shape
    x = torch.randn(7, in_features, generator=generator(1), dtype=torch.float64)
    expected = scale * paper_update(state, prefix, layout, x, out_features)
    assert torch.linalg.norm(x @ update.T - expected) <= 1e-6 * torch.linalg.norm(expected)
    assert torch.linalg.norm(expected) > 0.1


@pytest.mark.parametrize("layout", [(5, 3), (4, 3, 2), (2, 3, 4), (2, 3, 2, 4), (2, 3, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_operators_agree_with_the_paper(layout: tuple[int, ...], suffix: str) -> None:
    state = paper_layer("model.layers.0.q_proj", layout, generator(0))
    path = f"state.{suffix}"
    if suffix == "bin":
        torch.save(state, path)
    else:
        save_file(state, path)
    result = quanta("import", path, "-o", "adapter")
    assert result.exit_code == 0, result.stderr
    assert_agrees(state, "model.layers.0.q_proj", layout, "model.layers.0.q_proj")


@pytest.mark.parametrize(
    ("in_features", "out_features"), [(24, 24), (20, 24), (30, 24), (24, 9), (24, 40), (31, 5), (7, 33)]
)
def test_features_are_those_of_the_base_weight(in_features: int, out_features: int) -> None:
    state = paper_layer("m.q_proj", LAYOUT, generator(0))
    state["m.q_proj.weight"] = torch.zeros(out_features, in_features)
    save_file(state, "state.safetensors")
    assert quanta("import", "state.safetensors", "-o", "adapter").stderr == ""
    assert_agrees(state, "m.q_proj", LAYOUT, "m.q_proj")
    features = load_file("adapter/adapter_model.safetensors")["base_model.model.m.q_proj.quanta_circuit_features"]
    assert features.tolist() == [in_features, out_features]


def test_features_can_be_said() -> None:
    state = paper_layer("m.q_proj", LAYOUT, generator(0)) | paper_layer("m.v_proj", LAYOUT, generator(1))
    save_file(state, "state.safetensors")
    result = quanta("import", "state.safetensors", "-o", "adapter", "--features", "v_proj=20:9", "--scale", "0.5")
    assert result.exit_code == 0
    assert "it holds no base weight of 1 layer, whose features" in result.stderr
    assert_agrees(state, "m.q_proj", LAYOUT, "m.q_proj", 0.5)
    assert_agrees(state, "m.v_proj", LAYOUT, "m.v_proj", 0.5)
    assert read_adapter(Path("adapter")).updates["m.v_proj"].shape == (9, 20)


@pytest.mark.parametrize(
    "spelling",
    [
        "base_model.model.m.q_proj.quanta_weights{2}.{a} {b}",
        "module.base_model.model.m.q_proj.quanta_weights{2}.{a} {b}",
        "base_model.model.m.q_proj.quanta_weights{2}.default.{a} {b}",
        "base_model.model.m.q_proj.quanta_weights{2}.{a} {b}.mine",
    ],
)
def test_keys_may_be_wrapped(spelling: str) -> None:
    plain = paper_layer("m.q_proj", LAYOUT, generator(0))
    state = {}
    for key, tensor in plain.items():
        group, axes = key.removeprefix("m.q_proj.quanta_weights").split(".")
        a, b = axes.split(" ")
        state[spelling.replace("{2}", group).format(a=a, b=b)] = tensor
    # A training checkpoint holds more than the state dict.
    torch.save({"state_dict": state, "epoch": 3}, "state.pt")
    result = quanta("import", "state.pt", "-o", "adapter")
    assert result.exit_code == 0, result.stderr
    assert_agrees(plain, "m.q_proj", LAYOUT, "m.q_proj")


def test_layers_of_several_layouts_get_circuits_by_name() -> None:
    state = paper_layer("layers.0.q", (4, 6), generator(0)) | paper_layer("layers.0.v", (2, 3, 4), generator(1))
    state |= paper_layer("layers.1.q", (4, 6), generator(2)) | paper_layer("layers.1.v", (4, 3, 2), generator(3))
    save_file(state, "state.safetensors")
    assert quanta("import", "state.safetensors", "-o", "adapter").exit_code == 0
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    assert {pattern: circuit["name"] for pattern, circuit in config["circuit"].items()} == {
        "q": "quanta-4-6",
        r"^layers\.0\.v": "quanta-2-3-4",
        r"^layers\.1\.v": "quanta-4-3-2",
    }
    assert sorted(config["target_modules"]) == ["q", "v"]
    for module, layout in {"layers.0.q": (4, 6), "layers.0.v": (2, 3, 4), "layers.1.v": (4, 3, 2)}.items():
        assert_agrees(state, module, layout, module)


def test_a_name_inside_a_longer_one_is_not_confused() -> None:
    state = paper_layer("q", (4, 6), generator(0)) | paper_layer("inner.q", (2, 3, 4), generator(1))
    save_file(state, "state.safetensors")
    assert quanta("import", "state.safetensors", "-o", "adapter").exit_code == 0
    assert_agrees(state, "q", (4, 6), "q")
    assert_agrees(state, "inner.q", (2, 3, 4), "inner.q")


def test_targets_are_full_names_where_others_have_the_same_ending() -> None:
    state = paper_layer("layers.0.q", LAYOUT, generator(0)) | paper_layer("layers.10.q", LAYOUT, generator(0))
    for block in (0, 1, 10):
        state[f"layers.{block}.q.weight"] = torch.zeros(24, 24)
    save_file(state, "state.safetensors")
    data = json.loads(quanta("import", "state.safetensors", "-o", "adapter", "--json").stdout)
    assert data["target_modules"] == ["layers.0.q", "layers.10.q"]
    assert [layer["layer"] for layer in data["layers"]] == ["layers.0.q", "layers.10.q"]


def test_missing_gates_are_left_out_with_a_warning() -> None:
    state = paper_layer("m.q", LAYOUT, generator(0))
    del state["m.q.quanta_weights.-1 -3"], state["m.q.quanta_weights2.-1 -3"]
    save_file(state, "state.safetensors")
    result = quanta("import", "state.safetensors", "-o", "adapter")
    assert result.exit_code == 0
    assert "gates are missing, the circuits are written without them: 'm.q (no -1 -3)'" in result.stderr
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    assert config["circuit"]["gates"] == [[1, 2], [0, 1]]
    assert_agrees(state, "m.q", LAYOUT, "m.q")


def test_a_layout_fills_in_axes_that_no_gate_tells() -> None:
    whole = paper_layer("m.q", (4, 3, 2), generator(0))
    state = {key: tensor for key, tensor in whole.items() if key.endswith("-1 -2")}
    save_file(state, "state.safetensors")
    assert quanta("import", "state.safetensors", "-o", "adapter", "--layout", "4x3x2").exit_code == 0
    assert_agrees(state, "m.q", (4, 3, 2), "m.q")


def test_without_frozen_copies_the_update_is_t_alone() -> None:
    state = paper_layer("m.q", LAYOUT, generator(0), frozen=False)
    save_file(state, "state.safetensors")
    refused = quanta("import", "state.safetensors", "-o", "adapter")
    assert refused.exit_code == 1
    assert "--no-frozen-copy" in refused.stderr
    assert not Path("adapter").exists()
    assert quanta("import", "state.safetensors", "-o", "adapter", "--no-frozen-copy").exit_code == 0
    assert json.loads(Path("adapter/adapter_config.json").read_text())["residual"] == "none"
    assert_agrees(state, "m.q", LAYOUT, "m.q")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_keep_their_numbers(dtype: torch.dtype) -> None:
    state = {key: tensor.to(dtype) for key, tensor in paper_layer("m.q", LAYOUT, generator(0)).items()}
    save_file(state, "state.safetensors")
    assert quanta("import", "state.safetensors", "-o", "adapter").exit_code == 0
    tensors = load_file("adapter/adapter_model.safetensors")
    copy = tensors["base_model.model.m.q.quanta_circuit_frozen.g1"]
    assert torch.equal(copy, state["m.q.quanta_weights2.-1 -3"].reshape(8, 8))
    assert copy.dtype == dtype
    difference = tensors["base_model.model.m.q.quanta_circuit_delta.g1"]
    assert difference.dtype == torch.promote_types(dtype, torch.float32)
    # The difference of two numbers of 16 bits needs no more than 32 here.
    assert torch.equal((copy + difference).to(dtype), state["m.q.quanta_weights.-1 -3"].reshape(8, 8))
    assert_agrees(state, "m.q", LAYOUT, "m.q")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(24, 24), "v": nn.Linear(24, 9)}) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer["q"](x)  # type: ignore[index]
        result: torch.Tensor = self.layers[1]["v"](x)  # type: ignore[index]
        return result


def test_peft_loads_the_adapter_and_the_model_computes_what_the_papers_did() -> None:
    torch.manual_seed(0)
    model = Tiny().eval()
    state: State = {}
    for name, layout in {
        "layers.0.q": (4, 6),
        "layers.1.q": (4, 6),
        "layers.0.v": LAYOUT,
        "layers.1.v": LAYOUT,
    }.items():
        state |= paper_layer(f"base_model.model.{name}", layout, generator(len(state)))
        state[f"base_model.model.{name}.weight"] = model.get_submodule(name).weight.detach()  # type: ignore[operator]
    torch.save(state, "state.bin")
    assert quanta("import", "state.bin", "-o", "adapter", "--base-model", "tiny").exit_code == 0

    def paper(name: str, layout: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
        layer = model.get_submodule(name)
        return layer(x) + paper_update(state, f"base_model.model.{name}", layout, x, layer.out_features)  # type: ignore[no-any-return, arg-type]

    x = torch.randn(3, 24)
    with torch.no_grad():
        hidden = paper("layers.1.q", (4, 6), paper("layers.0.q", (4, 6), x))
        expected = paper("layers.1.v", LAYOUT, hidden)
        before = model(x)
        adapted = PeftModel.from_pretrained(model, "adapter")
        torch.testing.assert_close(adapted(x), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, expected)
    assert adapted.peft_config["default"].base_model_name_or_path == "tiny"


def test_an_adapter_is_overwritten_only_by_force() -> None:
    save_file(paper_layer("m.q", LAYOUT, generator(0)), "state.safetensors")
    Path("adapter").mkdir()
    Path("adapter/notes.txt").write_text("mine")
    assert quanta("import", "state.safetensors", "-o", "adapter").exit_code == 0
    before = Path("adapter/adapter_model.safetensors").read_bytes()
    save_file(paper_layer("m.q", LAYOUT, generator(5)), "state.safetensors")
    refused = quanta("import", "state.safetensors", "-o", "adapter")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "overwrite it with --force" in refused.stderr
    assert Path("adapter/adapter_model.safetensors").read_bytes() == before
    assert quanta("import", "state.safetensors", "-o", "adapter", "--force").exit_code == 0
    assert Path("adapter/adapter_model.safetensors").read_bytes() != before
    assert Path("adapter/notes.txt").read_text() == "mine"
    assert "Layers with 24 -> 24 features: residual `frozen_copy`" in Path("adapter/README.md").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["adapter", "state.safetensors"]


def test_the_circuits_of_every_shape_are_written_out_and_a_card_is_kept() -> None:
    state = {**paper_layer("m.q", LAYOUT, generator(0)), **paper_layer("m.k", (5, 3), generator(1))}
    state["m.k.weight"] = torch.zeros(9, 15)
    save_file(state, "state.safetensors")
    Path("adapter").mkdir()
    Path("adapter/README.md").write_text("My own words.\n")
    assert quanta("import", "state.safetensors", "-o", "adapter").exit_code == 0
    resolved = json.loads(Path("adapter/adapter_config.json").read_text())["resolved"]
    assert set(resolved) == {"q: 24 -> 24", "k: 15 -> 9"}
    assert resolved["k: 15 -> 9"]["circuit"]["layout"] == [5, 3]
    card = Path("adapter/README.md").read_text()
    assert card.startswith("My own words.\n")
    assert "Layers whose names end in `k` with 15 -> 9 features" in card


def test_the_state_dict_is_never_overwritten() -> None:
    Path("adapter").mkdir()
    save_file(paper_layer("m.q", LAYOUT, generator(0)), "adapter/adapter_model.safetensors")
    result = quanta("import", "adapter/adapter_model.safetensors", "-o", "adapter", "--force")
    assert result.exit_code == 1
    assert "is the state dict itself" in result.stderr


def test_what_is_printed(golden: object) -> None:
    state = paper_layer("layers.0.q", LAYOUT, generator(0)) | paper_layer("layers.1.q", LAYOUT, generator(1))
    save_file(state, "state.safetensors")
    result = quanta("import", "state.safetensors", "-o", "adapter")
    golden("cli/import.txt", result.stdout + "---\n" + result.stderr)  # type: ignore[operator]
    shutil.rmtree("adapter")
