"""The example of docs/extending.md everywhere where a kind of our own works, by one file of a package."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import Mlp, batch, circuit_layers
from commands import quanta
from installed_kinds import EXAMPLE
from peft import PeftModel, get_peft_model
from random_circuits import error, file_of

from quanta_compiler import accelerate, reference_operator
from quanta_compiler.driver import compile_circuit
from quanta_compiler.kinds import plugins
from quanta_compiler.peft import QuantaConfig
from quanta_compiler.spec import models

pytestmark = pytest.mark.usefixtures("householder")
GATES: list[Any] = [
    {"axes": [0, 1], "kind": "householder", "reflections": 3, "name": "h"},
    {"axes": [2], "kind": "householder", "per": [0]},
    [1, 2],
    {"axes": [0, 1], "share": "h", "transpose": True},
    {"axes": [1], "to": [2], "kind": "householder"},
]
FILE = file_of("4x3x5", GATES, in_features=60, out_features=40)


def products(vectors: torch.Tensor) -> torch.Tensor:
    """Return H_k ... H_1 of the rows v_1 ... v_k, reflection by reflection."""
    matrix = torch.eye(vectors.shape[-1], dtype=vectors.dtype)
    for vector in vectors:
        matrix = matrix - 2 * vector[:, None] * (vector @ matrix)[None] / vector.square().sum()
    return matrix


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_the_module_computes_products_of_reflections(backend: str) -> None:
    compiled = compile_circuit(FILE)
    module: Any = compiled.module(dtype=torch.float64, backend=backend)
    state = {key: torch.randn_like(tensor) for key, tensor in module.state_dict().items()}
    module.load_state_dict(state)
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        "gates.h": (3, 12),
        "gates.g1": (4, 4, 5),
        "gates.g2": (15, 15),
        "gates.g4": (3, 3),
    }
    x = torch.randn(7, 60, dtype=torch.float64)
    h, whole = products(state["gates.h"]), x.view(7, 12, 5)
    whole = torch.einsum("ij,bjc->bic", h, whole).view(7, 4, 3, 5)
    whole = torch.stack(
        [whole[:, place] @ products(vectors).T for place, vectors in enumerate(state["gates.g1"])], dim=1
    )
    whole = torch.einsum("ij,baj->bai", state["gates.g2"], whole.reshape(7, 4, 15)).reshape(7, 12, 5)
    whole = torch.einsum("ji,bjc->bic", h, whole).view(7, 4, 3, 5)
    whole = torch.einsum("ij,bajc->baic", products(state["gates.g4"])[:2], whole)
    assert error(module(x), whole.reshape(7, 40)) < 1e-12
    assert error(module.operator(), module(torch.eye(60, dtype=torch.float64)).T) < 1e-12
    assert error(reference_operator(module), module.operator()) < 1e-12


def test_gradients_of_the_backends_agree() -> None:
    compiled = compile_circuit(FILE)
    plain: Any = compiled.module(dtype=torch.float64, backend="torch")
    fused: Any = compiled.module(dtype=torch.float64, backend="fused")
    x = torch.randn(5, 60, dtype=torch.float64)
    for module in (plain, fused):
        module(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert error(fused.get_parameter(name).grad, parameter.grad) < 1e-11


def test_an_emitted_file_runs_without_the_package(tmp_path: Path) -> None:
    compile_circuit(FILE).write(tmp_path)["py"].rename(tmp_path / "alone.py")
    code = "import torch; from alone import Circuit; print(Circuit()(torch.ones(60)).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "torch.Size([40])\n", done.stderr


def test_an_imported_file_is_accelerated_where_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_circuit(FILE).write(tmp_path)["py"].rename(tmp_path / "accelerated_householder.py")
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module("accelerated_householder").Circuit()
    x = torch.randn(3, 60)
    before = module(x)
    assert error(accelerate(module, backend="fused")(x), before) < 1e-5
    del sys.modules["accelerated_householder"]
    again = import_module("accelerated_householder").Circuit()
    for function in (plugins._brought, plugins.find_kind, models.forms):
        function.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    # The package's metadata are still there, its entry points are not.
    with pytest.raises(ValueError, match=r"cannot be read here:\n.*quanta-householder 0\.1 has no kind 'householder'"):
        accelerate(again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    module: Any = compile_circuit(FILE).module(dtype=dtype)
    x = torch.randn(3, 60, dtype=dtype)
    exact = copy.deepcopy(module).double()
    assert error(module(x).double(), exact(x.double())) < (1e-5 if dtype == torch.float32 else 0.05)


def test_every_command_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "h.yaml"
    path.write_text(json.dumps(FILE))
    for command in ("check", "expand", "report", "draw", "verify", "compare"):
        result = quanta(command, str(path))
        assert result.exit_code == 0, (command, result.output)
    assert "householder of 3 reflections" in quanta("expand", str(path), "--stage", "circuit").stdout
    assert "H: a product of reflections" in quanta("draw", str(path)).stdout
    data = json.loads(quanta("report", str(path), "--json").stdout)
    assert data["parameters"]["trainable"] == 36 + 80 + 225 + 9
    assert [gate["kind"] for gate in data["gates"]] == ["householder"] * 2 + ["dense"] + ["householder"] * 2
    assert quanta("compile", str(path), "-o", str(tmp_path / "build")).exit_code == 0
    assert "householder" in (tmp_path / "build" / "test.report.html").read_text()


def test_an_adapter_trains_is_saved_and_merges(tmp_path: Path) -> None:
    circuit = file_of({"auto": 2}, [{"pattern": "chain", "kind": "householder"}, [0, 1]])
    model: Any = get_peft_model(Mlp(), QuantaConfig(circuit=circuit, target_modules=["q_proj"]))
    x = batch()
    before = model(x).detach()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    after = model(x).detach()
    assert error(after, before) > 1e-4
    model.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert "quanta-householder==0.1" in json.dumps(saved)
    loaded: Any = PeftModel.from_pretrained(Mlp(), str(tmp_path))
    assert torch.equal(loaded(x), after)
    assert circuit_layers(loaded)
    assert error(loaded.merge_and_unload()(x), after) < 1e-5


def test_a_pickled_module_comes_back() -> None:
    module: Any = compile_circuit(FILE).module(dtype=torch.float64)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    x = torch.randn(2, 60, dtype=torch.float64)
    assert torch.equal(torch.load(file, weights_only=False)(x), module(x))


def test_the_file_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 120
