"""`quanta kernel`: what is shown of kernels that fit, are cut, or do not fit, and what is said where none is made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import quanta

from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Number, Tiling
from quanta_compiler.kernels.engines.triton.resources import Resources

PAIRS = "version: 1\nname: pairs\nlayout: 16x8x4\ngates: [all_pairs]\n"


def file_of(folder: Path, text: str = PAIRS) -> str:
    path = folder / "circuit.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be compiled: two gates fit sm_80, one fits sm_86 but not backward, all fit sm_90."""

    def needs(_: Kernels, kernel: Kernel, tiling: Tiling, number: Number, arch: int) -> Resources:
        gates = kernel.last - kernel.first
        fitting = {80: 2, 86: 0 if kernel.name == "flow" else 1}.get(arch, 3)
        spilled = 0 if gates <= fitting else 8 * gates
        return Resources(100 + tiling.tokens, spilled, 1024 * tiling.tokens, 16 * gates)

    monkeypatch.setattr("quanta_compiler.kernels.engines.triton.plans.resources", needs)
    monkeypatch.setattr("quanta_compiler.kernels.engines.triton.needs._triton_version", lambda: "9.9")


@pytest.mark.usefixtures("made_up")
def test_what_is_launched_stands_first_and_what_was_tried_below(
    tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    result = quanta("kernel", file_of(tmp_path), "--arch", "sm_80,sm_86,sm_90")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    golden("cli/kernel.txt", result.stdout)


@pytest.mark.usefixtures("made_up")
def test_json_has_the_same(tmp_path: Path) -> None:
    text = quanta("kernel", file_of(tmp_path), "--arch", "sm_80,sm_86", "--gates", "float32", "--json").stdout
    data = json.loads(text)
    assert text == quanta("kernel", file_of(tmp_path), "--arch", "sm_80,sm_86", "--gates", "float32", "--json").stdout
    assert {key: data[key] for key in ("format", "circuit", "dtype", "gates_dtype", "triton")} == {
        "format": 1,
        "circuit": "pairs",
        "dtype": "bfloat16",
        "gates_dtype": "float32",
        "triton": "9.9",
    }
    found = {(one["arch"], one["pass"]): one for one in data["passes"]}
    assert [len(one["kernels"]) for one in found.values()] == [2, 2, 2, 2, 3, 3, 3, 0]
    assert found["sm_80", "flow"]["kernels"][0]["gates"] == ["g1", "g2"]
    refused = found["sm_86", "flow"]
    assert (refused["runs"], refused["reason"]) == ("as torch does", "it spills 8 bytes a thread or more")
    taken = [one for one in found["sm_80", "forward"]["tried"] if one["taken"]]
    assert [one["gates"] for one in taken] == [["g0", "g1"], ["g2"]]
    assert all(one["fits"] for one in taken)


@pytest.mark.usefixtures("made_up")
def test_the_difference_of_an_adapted_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its states are in float32; both sides are one kernel, or are computed apart."""
    seen: set[Number] = set()

    def needs(_: Kernels, kernel: Kernel, tiling: Tiling, number: Number, arch: int) -> Resources:
        seen.add(number)
        return Resources(100, 8 * (kernel.minus and arch == 80), 1024, 16)

    monkeypatch.setattr("quanta_compiler.kernels.engines.triton.plans.resources", needs)
    wide = PAIRS.replace("16x8x4", "16x8x8x4")
    text = quanta("kernel", file_of(tmp_path, wide), "--arch", "sm_80", "--difference", "--json").stdout
    data = json.loads(text)
    assert data["difference"]
    assert seen == {Number(torch.bfloat16, torch.float32, "tf32")}
    assert [(one["pass"], one["runs"]) for one in data["passes"]] == [
        ("forward", "T and S apart"),
        ("segment", "triton"),
        ("flow of S", "triton"),
        ("states", "triton"),
        ("flow", "T and S apart"),
    ]
    lines = quanta("kernel", file_of(tmp_path, wide), "--arch", "sm_90", "--difference").stdout.splitlines()
    assert lines[0] == "T x - S x of pairs in bfloat16: compiled by Triton 9.9, not measured"


@pytest.mark.usefixtures("made_up")
def test_a_matrix_that_no_program_can_hold_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    wide = PAIRS.replace("16x8x4", "512x512").replace("all_pairs", "[0]")
    lines = quanta("kernel", file_of(tmp_path, wide), "--arch", "sm_86").stdout.splitlines()
    reason = "as torch does: a gate takes 512 KiB, shared memory has 99 KiB"
    said = {line.split()[1]: line.split(maxsplit=2)[2] for line in lines[2:]}
    assert said == {
        "forward": reason,
        "segment": reason.replace("as torch does", "stored"),
        "states": reason,
        "flow": reason,
    }


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--arch", "sm_91", "'sm_91' is no architecture: choose some of sm_75, sm_80,"),
        ("--arch", "sm_80,a100", "'a100' is no architecture: choose some of sm_75, sm_80,"),
        ("--dtype", "float64", "'float64' is no dtype: "),
        ("--gates", "int8", "'int8' is no dtype"),
    ],
)
def test_a_wrong_option_is_wrong_usage(tmp_path: Path, option: str, value: str, said: str) -> None:
    result = quanta("kernel", file_of(tmp_path), option, value)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        (None, "`quanta kernel` needs Triton, which is not installed"),
        ("3.2.0", "`quanta kernel` needs Triton 3.6 or newer; 3.2.0 is installed"),
        ("3.7.1", "Triton 3.7.1 is installed without ptxas and cuobjdump and nvdisasm, which its wheel on PyPI has"),
    ],
)
def test_without_a_triton_that_compiles_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None, said: str
) -> None:
    triton: Any = installed and SimpleNamespace(__version__=installed, __file__=str(tmp_path / "triton.py"))
    monkeypatch.setitem(sys.modules, "triton", triton)
    result = quanta("kernel", file_of(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"quanta: {said}\n  hint: pip install triton (for Linux); it needs no GPU\n"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise OSError('libtriton.so: cannot open')", "cannot be imported (OSError: libtriton.so: cannot open)"),
        ("raise ImportError('undefined symbol')", "cannot be imported (ImportError: undefined symbol)"),
        ("import no_such_module", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        ("", "is another module of this name"),
    ],
    ids=["a library of its own", "another Python", "a package that it needs", "a user's own"],
)
def test_a_triton_that_does_not_load_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    (tmp_path / "triton.py").write_text(module)
    for name in [one for one in sys.modules if one.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = quanta("kernel", file_of(tmp_path))
    sys.modules.pop("triton", None)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"quanta: `quanta kernel` needs Triton, which {said}\n  hint: ")


def test_a_small_circuit_is_compiled_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    small = PAIRS.replace("16x8x4", "16x4")
    (result,) = json.loads(quanta("kernel", file_of(tmp_path, small), "--arch", "sm_80", "--json").stdout)["passes"][:1]
    (tried,) = result["tried"]
    assert tried["taken"]
    assert tried["matrix_instructions"] > 0
    assert tried["spilled_bytes"] == 0
