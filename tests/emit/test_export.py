"""Modules as `torch.export` and `torch.onnx` take them: for batches of any size, equal to the module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from packaging.version import Version
from random_circuits import error, file_of, random_file, scale_gates
from rotation_circuits import CIRCUITS

from quanta_compiler.driver import compile_circuit
from quanta_compiler.emit.expressions import view_code
from quanta_compiler.runtime import rotation_functions

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
_WANTS_STRIDES = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"), reason="torch before 2.13 wants to know which stride is the least"
)
BATCHES = {"from 1": torch.export.Dim("n"), "from 2": torch.export.Dim("n", min=2)}
BACKENDS = ("torch", "fused")


def preset(name: str, in_features: int = 48, **options: Any) -> dict[str, Any]:
    return {"version": 1, "name": "p", "preset": name, "in_features": in_features, **options}


PRESETS: dict[str, dict[str, Any]] = {
    "quanta": preset("quanta", layout={"auto": 3}),
    "quanta-wide": preset("quanta", out_features=60),
    "lora": preset("lora", rank=3),
    "krona": preset("krona", out_features=20),
    "tt": preset("tt", layout="4x3x4", rank=2),
    "loretta": preset("loretta", layout="4x3x4", rank=3),
    "monarch": preset("monarch"),
    "btt": preset("btt"),
    "btt-three": preset("btt", 60, layout="3x4x5", rank=2),
    "btt-four": preset("btt", 36, layout="3x2x2x3", rank=3, out_features=24),
    "butterfly": preset("butterfly", 32),
    "butterfly-padded": preset("butterfly", 20, out_features=27),
    "quantum_peft": preset("quantum_peft", rank=3, out_features=20),
    "quantum_peft_full": preset("quantum_peft_full", 24),
    "lotr": preset("lotr", rank=3),
    "vera": preset("vera", rank=3, out_features=20),
}
ROTATIONS = file_of(
    "2x2x8",
    [
        {"axes": [0], "kind": "ry"},
        {"axes": [0, 1], "kind": "cz"},
        {"axes": [2], "to": [5], "kind": "orthogonal"},
        {"axes": [2], "kind": "orthogonal", "map": "cayley", "rank_parameters": 1},
        {"axes": [2], "kind": "orthogonal", "map": "taylor", "order": 3},
        {"axes": [2], "kind": "orthogonal", "map": "neumann", "rank_parameters": 2},
        {"axes": [2], "kind": "orthogonal", "map": "householder"},
        {"axes": [2], "kind": "orthogonal", "map": "givens"},
    ],
)


def module_of(source: Any, backend: str) -> Any:
    return scale_gates(compile_circuit(source).module(backend=backend, dtype=torch.float32).eval(), 3)


def vectors(module: Any, count: int) -> torch.Tensor:
    return torch.randn(count, module.in_features, generator=torch.Generator().manual_seed(count))


def assert_exports(source: Any, backend: str) -> None:
    module = module_of(source, backend)
    for name, batch in BATCHES.items():
        exported = torch.export.export(module, (vectors(module, 5),), dynamic_shapes=({0: batch},)).module()
        for count in (1, 2, 9)[name == "from 2" :]:
            assert error(exported(vectors(module, count)), module(vectors(module, count))) < 1e-5


def in_onnx(module: torch.nn.Module | torch.export.ExportedProgram, x: torch.Tensor) -> Any:
    """Return the module as onnxruntime runs it, for any number of tokens."""
    shapes = None if isinstance(module, torch.export.ExportedProgram) else ({0: torch.export.Dim("n")},)
    arguments = cast(Any, (module, (x,)))
    program = torch.onnx.export(*arguments, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString())


def assert_runs(session: Any, module: Any) -> None:
    for count in (1, 5, 9):
        x = vectors(module, count)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert error(torch.from_numpy(y), module(x)) < 1e-5


MOVED_BY_A_VIEW = file_of(
    {"a": 1, "b": 2, "c": 3, "d": 2, "e": 2},
    [
        {"axes": ["d", "a"], "frozen": True, "name": "p"},
        {
            "axes": ["d", "a", "e"],
            "kind": "constant",
            "value": [[0, 1, 0.5, -1], [-3, 0, 0, 1], [1, -1, 0, 1], [0, 1, 0, 2]],
        },
        {"axes": ["e"], "to": [4], "kind": "lowrank", "rank": 1},
        {"axes": ["a", "e", "b"], "kind": "slice"},
        {"axes": ["d"], "to": {"d": 3, "f": 4}},
        {"axes": ["b"], "share": "p", "transpose": True},
    ],
    plan={"tokens": 7},
)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(PRESETS["btt-three"], id="btt", marks=_WANTS_STRIDES),
        pytest.param(PRESETS["butterfly"], id="butterfly", marks=_WANTS_STRIDES),
        pytest.param(MOVED_BY_A_VIEW, id="one token is moved by a view"),
    ],
)
def test_a_batch_of_any_size(file: dict[str, Any]) -> None:
    assert_exports(file, "torch")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("n, 4096", "n * 128, 32", "x.view(n * 128, 32)"),
        ("n * 128, 32", "64, n * 64", "x.view(64, n * 64)"),
        ("3, n, 8", "n * 24", "x.view(n * 24)"),
        ("n, 24", "n, 24", "x"),
        ("n", "", "x.view(())"),
        # Six does not divide three, and which stride of 96 n and 4 is less depends on n.
        ("3, n * 24, 4", "6, 4, n * 12", "x.view(n * 288).view(6, 4, n * 12)"),
        # Whether four divides n is not known either.
        ("n, 8", "4, n * 2", "x.view(n * 8).view(4, n * 2)"),
    ],
)
def test_a_view_that_may_depend_on_the_batch_is_one_dimension_first(old: str, new: str, code: str) -> None:
    assert view_code("x", old, new) == code


@pytest.mark.slow
def test_the_kernel_and_rotations_run_in_onnx() -> None:
    module = module_of(ROTATIONS, "fused")
    assert_runs(in_onnx(module, vectors(module, 4)), module)


@pytest.mark.parametrize("norm", [0.0, 1.0, 30.0, 1000.0])
def test_what_onnx_does_not_know_is_computed_by_products(norm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.randn(3, 190, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    numbers *= norm / torch.linalg.vector_norm(numbers, dim=-1, keepdim=True)
    for function in (rotation_functions.exponential, rotation_functions.cayley, rotation_functions.householder):
        for given, kept in ((numbers, 20), (numbers[:, :37], 2)):
            expected = function(given, 20, 12, kept)
            with monkeypatch.context() as patched:
                patched.setattr(rotation_functions, "is_for_onnx", lambda: True)
                assert error(function(given, 20, 12, kept), expected) < 1e-8


# All of it


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_for_batches_of_any_size(name: str, backend: str) -> None:
    assert_exports(PRESETS[name], backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_for_batches_of_any_size(file: Path, backend: str) -> None:
    assert_exports(file, backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", CIRCUITS)
def test_every_rotation_for_batches_of_any_size(name: str) -> None:
    for backend in BACKENDS:
        assert_exports(CIRCUITS[name], backend)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_circuits_for_batches_of_any_size(seed: int) -> None:
    for backend in BACKENDS:
        try:
            assert_exports(random_file(seed), backend)
        except torch._dynamo.exc.UserError as refusal:
            if "satisfy the generated guard" not in str(refusal):
                raise
            pytest.xfail("torch does not see that a view of an unknown batch is allowed: docs/exporting.md")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_in_onnx(name: str, backend: str) -> None:
    module = module_of(PRESETS[name], backend)
    assert_runs(in_onnx(module, vectors(module, 4)), module)


@pytest.mark.slow
@pytest.mark.parametrize("name", CIRCUITS)
def test_every_rotation_runs_in_onnx(name: str) -> None:
    for backend in BACKENDS:
        module = module_of(CIRCUITS[name], backend)
        assert_runs(in_onnx_if_known(module), module)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_circuits_run_in_onnx(seed: int) -> None:
    module = module_of(random_file(seed), "auto")
    assert_runs(in_onnx_if_known(module), module)


def in_onnx_if_known(module: Any) -> Any:
    try:
        return in_onnx(module, vectors(module, 4))
    except torch.onnx.OnnxExporterError as refusal:
        if "received all None or empty tensors" not in str(refusal):
            raise
        pytest.xfail("ONNX joins no lists without entries: an orthogonal matrix of one index has no numbers")


@pytest.mark.slow
def test_an_exported_program_with_the_kernel_runs_in_onnx() -> None:
    module = module_of(PRESETS["btt-three"], "fused")
    program = torch.export.export(module, (vectors(module, 4),), dynamic_shapes=({0: BATCHES["from 1"]},))
    assert "quanta_compiler.apply" in program.graph_module.code
    assert_runs(in_onnx(program, vectors(module, 4)), module)


@pytest.mark.slow
def test_the_page_s_python_runs_as_printed(tmp_path: Path) -> None:
    page = (ROOT / "docs/exporting.md").read_text(encoding="utf-8")
    check = "assert abs(module(x).detach().numpy() - y).max() < 1e-5\n"
    script = "\n".join([*re.findall(r"```python\n(.*?)```", page, re.DOTALL), check])
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
