"""What is said where a package of an extra is missing, and what works without all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import quanta

from quanta_compiler.system.extras import EXTRAS, MissingExtraError, missing_extra, require

ROOT = Path(__file__).parent.parent
CIRCUIT = "version: 1\nname: tiny\nlayout: 4x2x2\ngates: [all_pairs]\n"
MODEL = str(ROOT / "examples" / "models" / "llama2-7b")
SEARCH = ("search", "--in", "16", "--out", "16", "--max-parameters", "40", "--candidates", "50", "-o", "found")

MISSING = {
    ("analyze", "adapter"): ("safetensors", "peft"),
    ("analyze", "adapter", "-o", "picture.svg"): ("matplotlib", "plots"),
    ("bench", "tiny.yaml", "-o", "picture.svg"): ("matplotlib", "plots"),
    ("bench", "tiny.yaml", "--adapters"): ("transformers", "peft"),
    ("compare", "tiny.yaml", "--model", MODEL): ("peft", "peft"),
    ("import", "checkpoint.pt", "-o", "adapter"): ("safetensors", "peft"),
    (*SEARCH, "--jobs", "3"): ("joblib", "search"),
    (*SEARCH, "--backend", "threading", "--jobs", "2"): ("joblib", "search"),
    (*SEARCH, "--cluster", "tcp://127.0.0.1:1"): ("distributed", "cluster"),
    (*SEARCH, "--backend", "ray"): ("joblib", "search"),
    (*SEARCH, "--jobs", "1", "--fit", "weights.safetensors"): ("safetensors", "peft"),
}
"""For every command that needs more than the bare package: a package without which it fails, and its extra."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CIRCUIT)
    (tmp_path / "weights.safetensors").write_bytes(b"0123456789")
    return tmp_path


@pytest.mark.parametrize(("command", "missing"), MISSING.items(), ids=lambda part: " ".join(part[:2]))
def test_a_command_says_which_extra_it_needs(
    command: tuple[str, ...], missing: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra = missing
    monkeypatch.setitem(sys.modules, package, None)
    result = quanta(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    fact, hint = result.stderr.splitlines()
    assert re.fullmatch(rf"quanta: .+ needs {package}, which is not installed", fact)
    assert hint.startswith(f"  hint: pip install 'quanta-compiler[{extra}]'")
    assert ("--jobs 1" in hint) == ("--jobs" in command and "--fit" not in command)
    assert {path.name for path in folder.iterdir()} == {"tiny.yaml", "weights.safetensors"}


def test_problems_as_json_name_the_extra_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    result = quanta("import", "checkpoint.pt", "-o", "adapter", "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)
    assert problem["hint"] == "pip install 'quanta-compiler[peft]'"


BARE = """
import sys
sys.modules.update(dict.fromkeys({blocked}))
"""
OTHERS = ("accelerate", "bitsandbytes", "gguf", "numpy", "pandas", "scipy", "torchao", "tqdm")
"""What comes with an extra, or happens to be installed."""
EVERYTHING = """
from quanta_compiler.cli import main
for command in {commands}:
    sys.argv = ["quanta", *command]
    try:
        main()
    except SystemExit as error:
        assert not error.code, (command, error.code)
import quanta_compiler as qc
import torch
compiled = qc.compile_circuit("tiny.yaml")
assert compiled._repr_html_()
x = torch.ones(3, 16)
assert torch.allclose(compiled.module(0, backend="torch")(x), compiled.module(0, backend="auto")(x), atol=1e-5)
assert qc.reference_operator(compiled.module(0)).shape == (16, 16)
try:
    import quanta_compiler.peft
except ImportError as error:
    assert "pip install 'quanta-compiler[peft]'" in str(error), error
else:
    raise AssertionError("peft was imported")
"""


def _without(packages: set[str], code: str) -> subprocess.CompletedProcess[str]:
    script = BARE.format(blocked=packages) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_the_bare_package_does_everything_else() -> None:
    stages = [["expand", "tiny.yaml", "--stage", stage] for stage in ("circuit", "network", "plan", "program", "table")]
    commands = [
        ["new", "mine", "--layout", "4x4"],
        ["check", "tiny.yaml"],
        ["expand", "tiny.yaml"],
        *stages,
        ["compile", "tiny.yaml", "-o", "out"],
        ["report", "tiny.yaml", "-o", "page.html"],
        ["draw", "tiny.yaml", "-o", "tiny.svg"],
        ["verify", "tiny.yaml"],
        ["compare", "tiny.yaml", "-b", "lora:2", "-b", "dora:2", "--rank", "-o", "compare.html"],
        ["bench", "tiny.yaml", "--rounds", "1", "--tokens", "4"],
        ["schema"],
        [*SEARCH, "--jobs", "1"],
    ]
    done = _without({*EXTRAS, *OTHERS}, EVERYTHING.format(commands=commands))
    assert done.returncode == 0, done.stderr
    for word in ("Traceback", "NumPy", "numpy"):
        assert word not in done.stderr


def test_importing_the_method_says_which_extra_it_needs() -> None:
    code = "import quanta_compiler.peft"
    for package in ("peft", "transformers", "safetensors"):
        done = _without({package}, code)
        last = done.stderr.strip().splitlines()[-2:]
        assert last == [
            "quanta_compiler.system.extras.MissingExtraError: "
            f"quanta_compiler.peft needs {package}, which is not installed",
            "hint: pip install 'quanta-compiler[peft]'",
        ]


def test_a_package_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quanta_compiler.system.extras._is_installed", lambda package: True)
    for found in ("0.21.0rc1", "0.21", "1.0"):
        monkeypatch.setattr("quanta_compiler.system.extras.installed_version", lambda package, found=found: found)
        require("this", "peft")
    for found in ("0.9.1", "0.19.9+local"):
        monkeypatch.setattr("quanta_compiler.system.extras.installed_version", lambda package, found=found: found)
        with pytest.raises(MissingExtraError, match=rf"this needs peft 0.21 or newer; {re.escape(found)} is installed"):
            require("this", "peft")


def test_a_folder_of_the_name_is_no_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "joblib").mkdir()
    monkeypatch.delitem(sys.modules, "joblib", raising=False)
    monkeypatch.setattr(sys, "path", [str(folder)])
    with pytest.raises(MissingExtraError, match="needs joblib"):
        require("this", "joblib")


def test_only_the_packages_of_extras_are_explained() -> None:
    assert missing_extra(ImportError("cannot import name 'x' from 'peft'", name="peft")) is None
    assert missing_extra(ModuleNotFoundError("No module named 'peft.new'", name="peft.new")) is None
    assert missing_extra(ModuleNotFoundError("No module named 'ours'", name="ours")) is None
    told = missing_extra(ModuleNotFoundError("No module named 'joblib'", name="joblib"))
    assert told is not None
    assert told.hint == "pip install 'quanta-compiler[search]'"


def test_the_table_of_extras_is_that_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = {
        name: (extra, oldest)
        for extra, packages in re.findall(r"^(cluster|peft|plots|search|watch) = \[(.+)\]$", text, re.MULTILINE)
        for name, oldest in re.findall(r'"([\w-]+)>=([\d.]+)"', packages)
    }
    assert declared == dict(EXTRAS)
