"""The pipeline as a whole: its results on disk, its refusals, and what it loads."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from random_circuits import file_of

import quanta_compiler as qc
from quanta_compiler.emit.files import stem_of
from quanta_compiler.emit.seal import is_unedited
from quanta_compiler.system.files import write_file

FILE = file_of("4x3", [[0, 1]], name="small-one.v2")


def test_write_gives_every_file_and_says_where(tmp_path: Path) -> None:
    compiled = qc.compile_circuit(FILE)
    paths = compiled.write(tmp_path / "new" / "folder")
    assert paths["py"] == tmp_path / "new" / "folder" / "small_one_v2.py"
    assert paths["py"].read_text(encoding="utf-8") == compiled.source
    assert json.loads(paths["json"].read_text(encoding="utf-8")) == compiled.report.to_dict()
    assert paths["json"].name == "small_one_v2.report.json"
    assert paths["html"].name == "small_one_v2.report.html"
    assert paths["svg"].name == "small_one_v2.svg"
    assert sorted(path.name for path in paths.values()) == sorted(os.listdir(tmp_path / "new" / "folder"))


def test_a_compiled_circuit_shows_itself_in_a_line() -> None:
    assert repr(qc.compile_circuit(FILE)) == "CompiledCircuit(small-one.v2: 12 -> 12 features, layout 4x3, 1 gate)"


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first = {kind: path.read_bytes() for kind, path in qc.compile_circuit(FILE).write(tmp_path).items()}
    second = {kind: path.read_bytes() for kind, path in qc.compile_circuit(FILE).write(tmp_path).items()}
    assert first == second


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits")
def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    for path in qc.compile_circuit(FILE).write(tmp_path).values():
        assert stat.S_IMODE(path.stat().st_mode) == wanted


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda text: text.replace("contiguous", "clone"), id="code"),
        pytest.param(lambda text: text + "\n", id="line at the end"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="line ends"),
        pytest.param(lambda text: "# mine\n" + text, id="line at the start"),
        pytest.param(lambda text: text.split("\n", 1)[1], id="header gone"),
        pytest.param(lambda text: "print('my own file')\n", id="another file"),
        pytest.param(lambda text: "", id="emptied"),
        pytest.param(lambda text: b"\xff\xfe", id="binary"),
    ],
)
def test_an_edited_module_is_not_overwritten_without_force(edit: Any, tmp_path: Path) -> None:
    compiled = qc.compile_circuit(FILE)
    path = compiled.write(tmp_path)["py"]
    edited = edit(compiled.source)
    path.write_bytes(edited if isinstance(edited, bytes) else edited.encode())
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(qc.OutputError, match="--force"):
        qc.compile_circuit(FILE, tokens=3).write(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    qc.compile_circuit(FILE, tokens=3).write(tmp_path, force=True)
    assert is_unedited(path.read_text(encoding="utf-8"))
    # An unedited one is ours to replace, whatever it was compiled from.
    qc.compile_circuit(FILE).write(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_an_interrupted_write_leaves_the_old_files(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qc.compile_circuit(FILE).write(tmp_path)
    before = contents(tmp_path)
    calls = 0
    real = tempfile.mkstemp

    def failing(*arguments: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(28, "No space left on device")
        return real(*arguments, **keys)

    monkeypatch.setattr(tempfile, "mkstemp", failing)
    with pytest.raises(qc.OutputError, match="No space left"):
        qc.compile_circuit(FILE, tokens=5).write(tmp_path)
    assert contents(tmp_path) == before


def test_an_interrupt_while_writing_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qc.compile_circuit(FILE).write(tmp_path)
    before = contents(tmp_path)

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "chmod", interrupted)
    with pytest.raises(KeyboardInterrupt):
        qc.compile_circuit(FILE, tokens=5).write(tmp_path)
    assert contents(tmp_path) == before


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    compiled = qc.compile_circuit(FILE)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(qc.OutputError, match="file"):
        compiled.write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out" / "small_one_v2.report.json").mkdir(parents=True)
    with pytest.raises(qc.OutputError, match="is a folder"):
        compiled.write(tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["small_one_v2.report.json"]
    with pytest.raises(qc.OutputError, match="is a folder"):
        write_file(tmp_path, "text")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(qc.OutputError, match="cannot write"):
        qc.compile_circuit(FILE).write(tmp_path)
    tmp_path.chmod(0o700)


def test_a_refused_rename_is_told_and_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(qc.OutputError, match=r"cannot write .*small_one_v2\.py: Permission denied"):
        qc.compile_circuit(FILE).write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a", "a"),
        ("quanta-16-8-8-4", "quanta_16_8_8_4"),
        ("A.b-c_d", "A_b_c_d"),
        ("Class", "Class"),
        ("Random", "Random"),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@pytest.mark.parametrize(
    "name",
    [
        *("class", "torch", "None", "lambda"),
        # Of the standard library: here, and in other Pythons than this one.
        *("statistics", "typing", "email", "concurrent", "this"),
        *("asyncore", "telnetlib", "tomllib", "annotationlib"),
        # What torch and this package import, and what Python imports when it starts.
        *("numpy", "typing-extensions", "sympy", "functorch", "packaging", "quanta-compiler", "yaml", "sitecustomize"),
    ],
)
def test_stems_that_cannot_be_imported_or_hide_a_module_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(qc.OutputError, match=f"rename the circuit, to '{name}-circuit' for example"):
        qc.compile_circuit({**FILE, "name": name}).write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_module_of_the_standard_library_can_be_hidden() -> None:
    for name in sys.stdlib_module_names:
        if name.startswith("_"):
            continue  # no circuit has such a name
        with pytest.raises(qc.OutputError, match="would hide a module"):
            stem_of(name)


@pytest.mark.parametrize("tokens", [0, -1, True, 2.5, "8", 2**40])
def test_wrong_tokens_are_refused(tokens: Any) -> None:
    with pytest.raises(ValueError, match="tokens"):
        qc.compile_circuit(FILE, tokens=tokens)


def test_tokens_override_the_file() -> None:
    file = {**FILE, "plan": {"tokens": 7}}
    assert qc.compile_circuit(file).report.apply.planned_tokens == 7
    assert qc.compile_circuit(file, tokens=9).report.apply.planned_tokens == 9
    assert qc.compile_circuit(qc.load_spec(file), tokens=9).spec.tokens == 9


def test_sources_are_a_dict_a_text_or_a_path(tmp_path: Path) -> None:
    text = "version: 1\nname: small-one.v2\nlayout: 4x3\ngates: [[0, 1]]\n"
    (tmp_path / "circuit.yaml").write_text(text)
    sources = {
        qc.compile_circuit(source).source
        for source in (FILE, text, tmp_path / "circuit.yaml", str(tmp_path / "circuit.yaml"), qc.load_spec(FILE))
    }
    assert len(sources) == 1


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown backend"):
        qc.compile_circuit(FILE).module(backend="magic")


def test_the_compiler_loads_no_torch() -> None:
    script = (
        "import sys\n"
        "from quanta_compiler.driver import compile_circuit\n"
        "import quanta_compiler.cli.app\n"
        "compiled = compile_circuit({'version': 1, 'name': 't', 'layout': '4x3x2', 'gates': ['all_pairs']})\n"
        "compiled.report.to_json(); compiled.files()\n"
        "print([name for name in ('torch', 'transformers', 'networkx') if name in sys.modules])\n"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
