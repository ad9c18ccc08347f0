"""`quanta bench`: what it prints where, its exit codes, its picture."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import quanta
from typer.testing import CliRunner

from quanta_compiler.bench import run, timing
from quanta_compiler.bench.options import DTYPES, NAMES
from quanta_compiler.bench.timing import Timing
from quanta_compiler.cli.app import app
from quanta_compiler.system.machine import Load

CIRCUIT = "version: 1\nname: small\nlayout: 4x4x2\ngates: [all_pairs]\n"
QUICK = ("--tokens", "8", "--rounds", "2", "--threads", "1")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("circuit.yaml").write_text(CIRCUIT, encoding="utf-8")


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing vary and nobody else work, so that nothing is warned of."""
    monkeypatch.setattr(Load, "others", lambda load: 0.0)
    monkeypatch.setattr(timing, "summary", lambda seconds, count: Timing(1e-3, (1e-3, 1e-3), count))


@pytest.mark.usefixtures("steady")
def test_tables_in_a_pipe() -> None:
    result = quanta("bench", "circuit.yaml", *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.isascii()
    lines = result.stdout.splitlines()
    assert lines[0] == "small: 32 -> 32 features, layout 4x4x2, 3 gates"
    assert lines[1].startswith("8 tokens, float32, 1 thread, 2 rounds, ")
    assert [line for line in lines if line and not line.startswith(" ")][2:] == [
        *("forward", "forward + backward", "operator()", "limits", "left out"),
    ]
    (einsum,) = [line.split() for line in lines if line.startswith("  opt-einsum") and " 1x " in line][:1]
    assert einsum[1:5] == ["1", "ms", "0%", "1x"]
    assert "  lora-64  r is more than the layer's rank, 32" in lines


def test_json_of_standard_input() -> None:
    result = CliRunner().invoke(app, ["bench", "-", *QUICK, "--json", "--only", "einsum"], input=CIRCUIT)
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["format"] == 1
    assert data["settings"] == {"tokens": 8, "dtype": "float32", "rounds": 2, "threads": 1}
    assert [one["name"] for one in data["sections"][0]["contestants"]][1:] == ["einsum"]


@pytest.mark.usefixtures("steady")
def test_the_files_own_batch() -> None:
    Path("circuit.yaml").write_text(CIRCUIT + "plan: {tokens: 5}\n", encoding="utf-8")
    data = json.loads(quanta("bench", "circuit.yaml", "--rounds", "1", "--only", "dense", "--json").stdout)
    assert data["settings"]["tokens"] == 5


@pytest.mark.usefixtures("steady")
def test_other_programs_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "others", lambda load: 1000.0)
    result = quanta("bench", "circuit.yaml", *QUICK, "--only", "dense")
    assert result.exit_code == 0
    first, hint = result.stderr.splitlines()
    assert first.startswith("circuit.yaml: warning: other programs kept 1,000 of ")
    assert first.endswith(" cores busy (threads measured: 1)")
    assert hint == "  hint: close them"
    several = quanta("bench", "circuit.yaml", *QUICK, "--threads", "2", "--only", "dense").stderr
    assert "hint: close them, or measure with fewer --threads: threads that wait" in several


def test_a_wide_spread_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "others", lambda load: 0.0)
    monkeypatch.setattr(timing, "summary", lambda seconds, count: Timing(1e-3, (0.9e-3, 1.1e-3), count))
    result = quanta("bench", "circuit.yaml", *QUICK, "--only", "dense")
    assert result.exit_code == 0
    first, hint = result.stderr.splitlines()
    assert first.startswith("circuit.yaml: warning: spread too wide to believe: the matmul limit 20%, ")
    assert first.endswith(" and 3 more")
    assert hint == "  hint: close other programs, or take more rounds (--rounds 5)"


def test_a_wrong_contestant_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> dict[str, float]:
        return {"forward": 0.5, "forward_backward": float("nan"), "operator": 0.0}

    monkeypatch.setattr(run, "errors", wrong)
    result = quanta("bench", "circuit.yaml", *QUICK, "--only", "opt-einsum", "--json")
    assert result.exit_code == 1
    assert "opt-einsum computes something else: forward is 0.5 of the norm away" in result.stderr
    assert "Traceback" not in result.stderr
    data = json.loads(result.stdout)
    assert [one["wrong"] for one in data["sections"][0]["contestants"]] == [["forward", "forward_backward"]] * 2
    text = quanta("bench", "circuit.yaml", *QUICK, "--only", "opt-einsum").stdout
    assert [line.split()[1] for line in text.splitlines() if line.startswith("  opt-einsum  ")][1:] == [
        *("WRONG", "WRONG", text.split("operator()")[1].split("opt-einsum")[1].split()[0]),
    ]


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize(("name", "start"), [("b.svg", b"<?xml"), ("b.png", b"\x89PNG"), ("B.PDF", b"%PDF")])
def test_pictures(name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    result = quanta("bench", "circuit.yaml", *QUICK, "-o", name)
    assert (result.exit_code, result.stderr) == (0, f"{name}\n")
    assert Path(name).read_bytes().startswith(start)
    assert sorted(path.name for path in Path().iterdir()) == sorted([name, "circuit.yaml"])


def test_a_picture_is_svg_that_names_everybody() -> None:
    pytest.importorskip("matplotlib")
    adapters = ("--adapters", "--only", "opt-einsum,peft-lora-8")
    assert quanta("bench", "circuit.yaml", *QUICK, *adapters, "-o", "b.svg").exit_code == 0
    root = ET.parse("b.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = Path("b.svg").read_text(encoding="utf-8")
    for words in ("opt-einsum", "peft-lora-8", "bare", "forward + backward", "saved for backward", "On a frozen layer"):
        assert f">{words}</text>" in text


def test_without_matplotlib_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(run, "bench", _never)
    result = quanta("bench", "circuit.yaml", *QUICK, "-o", "b.svg")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "needs matplotlib" in result.stderr


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("something was measured")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/b.svg", "quanta: cannot write nowhere/b.svg: there is no folder nowhere\n"),
        ("folder.svg", "quanta: folder.svg is a folder: give the name of a file\n"),
        ("circuit.svg", "quanta: circuit.svg is the circuit file itself: choose another folder or name with -o\n"),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_at_once(
    output: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "bench", _never)
    Path("folder.svg").mkdir()
    Path("circuit.svg").write_text(CIRCUIT, encoding="utf-8")
    result = quanta("bench", "circuit.svg", *QUICK, "-o", output)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "b.gif"], "should end in one of .svg, .png, .pdf"),
        (["--dtype", "int8"], f"choose one of {', '.join(DTYPES)}"),
        (["--only", "opt-einsun"], "did you mean 'opt-einsum'?"),
        (["--only", "zzz"], f"choose some of {', '.join(NAMES)}"),
        (["--only", "dense,peft-lokr"], "'peft-lokr' is measured on a frozen layer: add --adapters"),
        (["--rounds", "0"], "--rounds"),
        (["--tokens", "0"], "--tokens"),
        (["--threads", "none"], "--threads"),
        (["--max-bytes", "0"], "--max-bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_usage(options: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    result = quanta("bench", "circuit.yaml", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())


def test_a_batch_without_room_reaches_a_limit() -> None:
    result = quanta("bench", "circuit.yaml", "--tokens", str(2**31))
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("quanta: measuring this circuit on 2,147,483,648 tokens needs about ")
    assert result.stderr.endswith("(half of the free memory; see --max-bytes), or measure fewer --tokens\n")
    result = quanta("bench", "circuit.yaml", "--tokens", "1", "--max-bytes", "10", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)[0]["message"].endswith("may take 10 bytes (--max-bytes)")


def test_memory_that_torch_does_not_get_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any, **__: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(run, "measure", greedy)
    result = quanta("bench", "circuit.yaml", *QUICK, "--only", "dense")
    assert (result.exit_code, result.stdout) == (3, "")
    assert (
        result.stderr
        == "quanta: there is not enough memory for 8 tokens: measure fewer --tokens, or lower --max-bytes\n"
    )


def test_a_wrong_file_is_told_as_everywhere() -> None:
    Path("circuit.yaml").write_text(CIRCUIT.replace("all_pairs", "all_pair"), encoding="utf-8")
    result = quanta("bench", "circuit.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("circuit.yaml:4:9: unknown pattern 'all_pair'")
    assert quanta("bench", "missing.yaml", "--json").exit_code == 1


def test_an_interruption_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    monkeypatch.setattr(run, "measure", interrupted)
    result = quanta("bench", "circuit.yaml", "--tokens", "8", "--threads", "3", "-o", "b.svg")
    assert (result.exit_code, result.stdout) == (130, "")
    assert [path.name for path in Path().iterdir()] == ["circuit.yaml"]
    assert torch.get_num_threads() == before


def test_help_is_plain_text_in_a_pipe() -> None:
    result = quanta("bench", "--help")
    assert result.exit_code == 0
    assert result.stdout.isascii()
    for option in ("--tokens", "--dtype", "--threads", "--rounds", "--adapters", "--only", "--max-bytes", "--json"):
        assert option in result.stdout


def test_help_and_wrong_usage_load_neither_torch_nor_opt_einsum() -> None:
    code = """
import sys
from quanta_compiler.cli.app import app
for arguments in (["bench", "--help"], ["bench", "circuit.yaml", "--dtype", "int8"]):
    try:
        app(arguments)
    except SystemExit:
        pass
assert not {"torch", "opt_einsum", "matplotlib", "peft"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
