"""Wrong input of `quanta import`: the place, the fact, the remedy, exit code 1, and nothing written."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from paper_checkpoints import State, generator, paper_layer
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from quanta_compiler.cli.app import app

Golden = Callable[[str, str], None]
LAYOUT = (4, 3, 2)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def quanta(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["import", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def good() -> State:
    return paper_layer("m.q", LAYOUT, generator(0)) | paper_layer("m.v", LAYOUT, generator(1))


def _nan(state: State) -> None:
    state["m.q.quanta_weights.-1 -2"][0, 0, 0, :] = float("nan")
    state["m.v.quanta_weights2.-2 -3"][:] = float("inf")


def _shapes(state: State) -> None:
    state["m.q.quanta_weights.-1 -2"] = torch.zeros(6, 6)
    state["m.v.quanta_weights.-1 -2"] = torch.zeros(3, 2, 3, 4)


def _disagreement(state: State) -> None:
    state["m.q.quanta_weights.-1 -3"] = torch.zeros(5, 2, 5, 2)


def _keys(state: State) -> None:
    for name in ("-2 -1", "0 1", "-1 -1", "gate", "-1"):
        state[f"m.q.quanta_weights.{name}"] = torch.zeros(2, 2, 2, 2)


def _twice(state: State) -> None:
    state["base_model.model.m.q.quanta_weights.-1 -2"] = torch.zeros(3, 2, 3, 2)


def _adapters(state: State) -> None:
    state["m.q.quanta_weights.second.-1 -2"] = torch.zeros(3, 2, 3, 2)


def _half_frozen(state: State) -> None:
    del state["m.q.quanta_weights2.-1 -2"]
    for key in [key for key in state if key.startswith("m.v.quanta_weights2")]:
        del state[key]


def _only_frozen(state: State) -> None:
    for key in [key for key in state if ".quanta_weights." in key]:
        del state[key]


def _no_frozen(state: State) -> None:
    for key in [key for key in state if ".quanta_weights2." in key]:
        del state[key]


def _unknown_axis(state: State) -> None:
    for key in [key for key in state if not key.endswith("-2 -3")]:
        del state[key]


def _integers(state: State) -> None:
    state["m.q.quanta_weights.-1 -2"] = torch.zeros(3, 2, 3, 2, dtype=torch.int8)


def _nothing(state: State) -> None:
    state.clear()
    state["model.embed_tokens.weight"] = torch.zeros(2, 2)


def _no_module(state: State) -> None:
    state["base_model.model.quanta_weights.-1 -2"] = torch.zeros(3, 2, 3, 2)


CASES: dict[str, tuple[Callable[[State], None], tuple[str, ...]]] = {
    "nan": (_nan, ()),
    "shapes": (_shapes, ()),
    "disagreement": (_disagreement, ()),
    "keys": (_keys, ()),
    "twice": (_twice, ()),
    "several adapters": (_adapters, ()),
    "half frozen": (_half_frozen, ()),
    "only frozen": (_only_frozen, ()),
    "no frozen copies": (_no_frozen, ()),
    "unknown axis": (_unknown_axis, ()),
    "integers": (_integers, ()),
    "no gates": (_nothing, ()),
    "no module": (_no_module, ()),
    "layout": (lambda state: None, ("--layout", "4x3x3")),
    "layout of two axes": (lambda state: None, ("--layout", "3x2")),
    "unused pattern": (lambda state: None, ("--features", "k_proj=24:24")),
    "frozen copies after all": (lambda state: None, ("--no-frozen-copy",)),
}


def test_every_mistake_is_told(golden: Golden) -> None:
    texts = []
    for name, (change, options) in CASES.items():
        state = good()
        change(state)
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, "state.safetensors")
        result = quanta("state.safetensors", "-o", "new/adapter", *options)
        assert (result.exit_code, result.stdout) == (1, ""), name
        assert [path.name for path in Path().iterdir()] == ["state.safetensors"], name
        texts.append(f"# {name}\n{result.stderr}")
    golden("cli/import_errors.txt", "\n".join(texts))


class Unwelcome:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("run",)


DAMAGED = (
    *("cut.safetensors", "header.safetensors", "short.safetensors", "huge.safetensors"),
    *("cut.bin", "code.bin", "legacy.bin", "list.bin", "text.bin", "empty.bin"),
)


def _damaged_files() -> dict[str, bytes]:
    save_file(good(), "good.safetensors")
    torch.save(good(), "good.bin")
    torch.save({"m.q.quanta_weights.-1 -2": Unwelcome()}, "code.bin")
    torch.save([1, 2], "list.bin")
    names = ("good.safetensors", "good.bin", "code.bin", "list.bin")
    data = {name: Path(name).read_bytes() for name in names}
    for name in names:
        Path(name).unlink()
    return {
        "cut.safetensors": data["good.safetensors"][:-7],
        "header.safetensors": data["good.safetensors"][:40],
        "short.safetensors": b"\x01",
        "huge.safetensors": (2**62).to_bytes(8, "little") + b"{}",
        "cut.bin": data["good.bin"][: len(data["good.bin"]) // 2],
        "code.bin": data["code.bin"],
        "legacy.bin": pickle.dumps(Unwelcome()),
        "list.bin": data["list.bin"],
        "text.bin": b"no tensors here\n",
        "empty.bin": b"",
    }


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str) -> None:
    Path(name).write_bytes(_damaged_files()[name])
    result = quanta(name, "-o", "adapter")
    assert (result.exit_code, result.stdout) == (1, "")
    first, hint = result.stderr.splitlines()
    assert first.startswith(f"{name}: ")
    assert hint.startswith("  hint: ")
    assert [path.name for path in Path().iterdir()] == [name]


def test_a_pickle_is_not_run() -> None:
    Path("code.bin").write_bytes(_damaged_files()["code.bin"])
    result = quanta("code.bin", "-o", "adapter")
    assert "it is a pickle of more than tensors, which is not opened because it could run code" in result.stderr
    assert not Path("run").exists()


def test_places_that_are_no_file() -> None:
    Path("folder").mkdir()
    assert quanta("folder", "-o", "adapter").stderr == (
        "folder: it is a folder\n  hint: give the file of tensors inside it\n"
    )
    assert quanta("missing.bin", "-o", "adapter").stderr == "missing.bin: there is no such file\n"


def test_an_output_that_cannot_be_written() -> None:
    save_file(good(), "state.safetensors")
    Path("file").write_text("mine")
    for folder in ("file", "file/adapter"):
        result = quanta("state.safetensors", "-o", folder)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("quanta: ")
    assert Path("file").read_text() == "mine"


def test_problems_as_json() -> None:
    state = good()
    _nan(state)
    save_file(state, "state.safetensors")
    result = quanta("state.safetensors", "-o", "adapter", "--json")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)
    assert [problem["path"] for problem in problems] == ["m.q.quanta_weights.-1 -2", "m.v.quanta_weights2.-2 -3"]


@pytest.mark.parametrize(
    "options",
    [
        ["--layout", "4"],
        ["--layout", "4x0"],
        ["--layout", "four"],
        ["--features", "q"],
        ["--features", "q=24"],
        ["--features", "(=24:24"],
        ["--scale", "nan"],
        ["--scale", "much"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage(options: list[str]) -> None:
    save_file(good(), "state.safetensors")
    output = ["-o", "adapter"] if options else []
    assert quanta("state.safetensors", *output, *options).exit_code == 2
    assert not Path("adapter").exists()


def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(good(), "state.safetensors")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    assert quanta("state.safetensors", "-o", "adapter").exit_code == 130
    assert [path.name for path in Path().iterdir()] == ["state.safetensors"]
