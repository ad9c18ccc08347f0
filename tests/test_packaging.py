"""The wheel, in an environment that has never seen this folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
USE = """
import torch
import quanta_compiler as qc
compiled = qc.compile_circuit("circuit.yaml")
module = compiled.module()
assert module(torch.ones(2, 16)).shape == (2, 16)
assert compiled.graph.number_of_nodes() == 3
assert "site-packages" in qc.__file__
from quanta_compiler.kernels.build import SOURCE
assert SOURCE.is_file()
"""


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """Build it, install it with the pinned torch, compile a circuit from another folder, import the result."""

    def run(*command: object) -> str:
        words = [str(part) for part in command]
        result = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"quanta_compiler/py.typed", "quanta_compiler/kernels/circuit.cpp"} <= {*names}
    pages = (ROOT / "quanta_compiler" / "pages").rglob("*.*")
    assert {path.relative_to(ROOT).as_posix() for path in pages if path.suffix != ".pyc"} <= {*names}
    assert "quanta_compiler/predict/typical.json" in names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    scripts = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    (tmp_path / "circuit.yaml").write_text("version: 1\nname: tiny\nlayout: 4x4\ngates:\n  - [0, 1]\n")
    run(scripts / "quanta", "compile", "circuit.yaml", "-o", "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"tiny.py", "tiny.report.html", "tiny.svg"}
    run(scripts / "python", "-c", USE)
    run(scripts / "quanta", "verify", "circuit.yaml")
