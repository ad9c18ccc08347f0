"""What is built from this folder, and installed where this folder has never been seen."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FOLDERS = (".github", "docs", "examples", "quanta_compiler", "schemas", "tests")
FILES = (
    *(".ci/run", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md"),
    *(".pre-commit-config.yaml", "CITATION.cff", "SECURITY.md", "constraints.txt", "mkdocs.yml", "pyproject.toml"),
)
MADE = {"PKG-INFO", "setup.cfg", "quanta_compiler.egg-info"}
"""What setuptools adds to an sdist."""
CIRCUIT = "version: 1\nname: tiny\nlayout: 4x4\ngates:\n  - [0, 1]\n"
BARE = """
import sys
import torch
import quanta_compiler as qc
compiled = qc.compile_circuit("circuit.yaml")
module = compiled.module()
assert module(torch.ones(2, 16)).shape == (2, 16)
assert compiled.graph.number_of_nodes() == 3
assert "site-packages" in qc.__file__
from quanta_compiler.kernels.engines.cpu.build import SOURCE
assert SOURCE.is_file()
try:
    import quanta_compiler.peft
except ImportError as error:
    assert "pip install 'quanta-compiler[peft]'" in str(error)
else:
    raise AssertionError("the bare package has PEFT")
assert not {"joblib", "numpy", "matplotlib"} & set(sys.modules)
"""
ADAPTER = """
import torch
from peft import PeftModel, get_peft_model
from quanta_compiler.peft import QuantaConfig

def base():
    return torch.nn.Sequential(torch.nn.Linear(16, 16, bias=False))

model = get_peft_model(base(), QuantaConfig(circuit="circuit.yaml", target_modules=["0"]))
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.01)
model.save_pretrained("adapter")
loaded = PeftModel.from_pretrained(base(), "adapter")
assert "default" in loaded.base_model.model[0].quanta_circuit_delta
"""


def run(folder: Path, *command: object, code: int = 0) -> str:
    """Run a command in a folder, and return what it says."""
    words = [str(part) for part in command]
    result = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == code, said
    return said


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and with the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    run(folder, sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


def test_the_sdist_is_the_project(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name.partition("/")[0] for name in names} == {*FOLDERS, *MADE, *(name.partition("/")[0] for name in FILES)}
    assert {*FILES} <= names
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    assert {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts} <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_wheel_is_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (ROOT / "quanta_compiler").rglob("*")
    package = {path.relative_to(ROOT).as_posix() for path in files if path.is_file() and path.suffix != ".pyc"}
    assert names == package


def test_the_wheel_works_in_a_clean_environment(built: Path, tmp_path: Path) -> None:
    """Install it bare, with the pinned torch, then with all extras: what is there works, the rest is named."""
    (wheel,) = built.glob("*.whl")
    (tmp_path / "circuit.yaml").write_text(CIRCUIT)
    run(tmp_path, sys.executable, "-m", "venv", "venv")
    scripts = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python, quanta = scripts / "python", scripts / "quanta"
    install = (python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    search = (
        quanta,
        "search",
        "--in",
        "16",
        "--out",
        "16",
        "--max-parameters",
        "40",
        "-o",
        "found",
        "--candidates",
        "50",
    )

    run(tmp_path, *install, wheel)
    run(tmp_path, quanta, "compile", "circuit.yaml", "-o", "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"tiny.py", "tiny.report.html", "tiny.svg"}
    run(tmp_path, python, "-c", BARE)
    assert "numpy" not in run(tmp_path, quanta, "verify", "circuit.yaml").lower()
    run(tmp_path, python, ROOT / "examples" / "train.py", "out/tiny.py", "--steps", "2")
    assert "'quanta-compiler[search]'" in run(tmp_path, *search, "--jobs", "2", code=1)
    assert "'quanta-compiler[peft]'" in run(tmp_path, quanta, "analyze", "adapter", code=1)
    assert "'quanta-compiler[plots]'" in run(tmp_path, quanta, "analyze", "adapter", "-o", "a.svg", code=1)

    run(tmp_path, *install, f"{wheel}[all]")
    run(tmp_path, python, "-c", ADAPTER)
    run(tmp_path, quanta, "analyze", "adapter", "-o", "a.svg")
    run(tmp_path, *search, "--jobs", "2")
    model = ROOT / "examples" / "models" / "llama2-7b"
    run(tmp_path, quanta, "compare", "-b", "lora:8", "--model", model, "--targets", "q_proj")
