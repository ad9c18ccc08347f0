"""`qc.accelerate`: an instance of an emitted file that training code imports, with the engines of `fused`."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import saved_bytes
from fused_circuits import assert_close, gradients, vectors
from quick_seeds import every_second
from random_circuits import error, file_of, random_file

import quanta_compiler as qc
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.emit.seal import sealed
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.runtime.backends import BACKENDS, EngineError

Import = Callable[[CompiledCircuit], Any]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return what writes a circuit's file and imports it, as training code does."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(circuit: CompiledCircuit) -> Any:
        circuit.write(tmp_path, force=True)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, circuit.stem, raising=False)
        return importlib.import_module(circuit.stem)

    return run


def instance(file: Any, circuit: CompiledCircuit, dtype: torch.dtype = torch.float64) -> Any:
    module = file.Circuit(dtype=dtype)
    module.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=max(1, parameter.shape[-1]) ** -0.5)
    return module


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recompute", [False, True])
def test_the_same_module_computes_otherwise(
    mixed: CompiledCircuit, imported: Import, backend: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "prefers", lambda *_: True)
    file = imported(mixed)
    module = instance(file, mixed)
    plain = copy.deepcopy(module)
    seen: list[str] = []
    module.register_forward_hook(lambda *_: seen.append("hook"))
    module.register_buffer("steps", torch.ones(3), persistent=False)
    module.eval()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    keys = list(module.state_dict())
    found = qc.accelerate(module, backend=backend, recompute=recompute)
    assert found is module
    assert isinstance(module, file.Circuit)
    assert {**dict(module.named_parameters()), **dict(module.named_buffers())}.keys() == tensors.keys()
    assert all(module.get_parameter(name) is p for name, p in tensors.items() if name != "steps")
    assert module.steps is tensors["steps"]
    assert (list(module.state_dict()), module.training) == (keys, False)
    assert re.sub(r" *engine: .*\n", "", repr(module)) == repr(plain)
    x = vectors(mixed, 11)
    assert error(module(x), plain(x)) < 1e-12
    assert seen == ["hook"]
    assert_close(gradients(module, x), gradients(plain, x), 1e-11)
    assert torch.equal(module.operator(), plain.operator())
    if backend == "fused" or recompute:
        x = vectors(mixed, 50).requires_grad_()
        # The input, and a product of two factors.
        assert saved_bytes(module, lambda: module(x)) <= x.nbytes + 160


def test_an_optimizer_made_before_goes_on(mixed: CompiledCircuit, imported: Import) -> None:
    module = instance(imported(mixed), mixed)
    plain = copy.deepcopy(module)
    x, after = vectors(mixed, 5), []
    for one in (module, plain):
        optimizer = torch.optim.Adam(one.parameters(), lr=0.1)
        if one is module:
            qc.accelerate(module, backend="fused")
        for _ in range(3):
            optimizer.zero_grad()
            one(x).square().sum().backward()
            optimizer.step()
        after.append(one.state_dict())
    assert_close(after[0], after[1], 1e-8)


def test_copies_and_pickles_are_accelerated_too(mixed: CompiledCircuit, imported: Import) -> None:
    file = imported(mixed)
    module = qc.accelerate(instance(file, mixed), backend="fused")
    module.extra = [1]
    x = vectors(mixed, 5)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is type(module)
        assert (other is module, other.extra) == (False, [1])
        assert torch.equal(other(x), module(x))
    # Of the class, as any instance of the file is pickled, not of its source.
    assert file.__name__.encode() in pickle.dumps(module)
    assert b"import torch" not in pickle.dumps(module)
    plain = pickle.loads(pickle.dumps(instance(file, mixed)))
    assert type(plain) is file.Circuit


def test_once_is_enough_and_another_backend_takes_its_place(mixed: CompiledCircuit, imported: Import) -> None:
    file = imported(mixed)
    module = qc.accelerate(instance(file, mixed), backend="fused")
    kind = type(module)
    assert type(qc.accelerate(module, backend="fused")) is kind
    assert type(qc.accelerate(instance(file, mixed), backend="fused")) is kind
    assert type(qc.accelerate(module, backend="torch")) is file.Circuit
    assert type(qc.accelerate(module, backend="torch", recompute=True)) not in (kind, file.Circuit)


def test_a_module_of_a_compiled_circuit_is_one_of_its_own_classes(mixed: CompiledCircuit) -> None:
    module = mixed.module(backend="torch")
    assert type(qc.accelerate(module, backend="fused")) is type(mixed.module(backend="fused"))
    assert type(pickle.loads(pickle.dumps(module))) is type(module)


def test_modules_inside_a_model_by_a_loop(mixed: CompiledCircuit, imported: Import) -> None:
    file = imported(mixed)
    model = torch.nn.Sequential(torch.nn.Linear(20, 20, dtype=torch.float64), instance(file, mixed))
    plain, x = copy.deepcopy(model), vectors(mixed, 3)
    for module in model.modules():
        if isinstance(module, file.Circuit):
            qc.accelerate(module, backend="fused")
    assert type(model[1]) is not file.Circuit
    assert error(model(x), plain(x)) < 1e-12


def test_torch_compile_takes_what_is_accelerated(imported: Import) -> None:
    circuit = compile_circuit(file_of("4x3", [[0, 1], [0]], name="compiled-after"))
    plain = instance(imported(circuit), circuit)
    module = qc.accelerate(copy.deepcopy(plain), backend="fused")
    x = vectors(circuit, 6)
    fast: Any = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert error(fast(x), plain(x)) < 1e-12


def test_files_without_a_place_in_sys_modules_and_in_archives(mixed: CompiledCircuit, tmp_path: Path) -> None:
    path = mixed.write(tmp_path / "loose")["py"]
    spec = importlib.util.spec_from_file_location("nowhere", path)
    assert spec is not None
    assert spec.loader is not None
    loose = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loose)
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.write(path, "zipped_circuit.py")
    sys.path.insert(0, str(tmp_path / "files.zip"))
    try:
        zipped = importlib.import_module("zipped_circuit")
    finally:
        del sys.path[0], sys.modules["zipped_circuit"]
    for file in (loose, zipped):
        module = instance(file, mixed)
        plain, x = copy.deepcopy(module), vectors(mixed, 3)
        assert error(qc.accelerate(module, backend="fused")(x), plain(x)) < 1e-12


@pytest.mark.parametrize("seed", every_second(range(40)))
def test_this_version_knows_its_own_files(seed: int, imported: Import) -> None:
    circuit = compile_circuit({**random_file(seed), "name": f"own-{seed}"}, tokens=7 + seed)
    module = instance(imported(circuit), circuit)
    assert qc.accelerate(module, backend="fused") is module


# What is refused, before anything has changed


def refused(module: Any, message: str, **keys: Any) -> None:
    kind, state = type(module), dict(vars(module))
    with pytest.raises(ValueError, match=message):
        qc.accelerate(module, **keys)
    assert type(module) is kind
    assert vars(module) == state


def test_an_unknown_backend_and_what_is_no_module(mixed: CompiledCircuit, imported: Import) -> None:
    file = imported(mixed)
    refused(instance(file, mixed), "^unknown backend 'cuda': choose one of auto, torch, fused$", backend="cuda")
    nothing: Any
    for nothing in (file.Circuit, file, None):
        with pytest.raises(ValueError, match=r"^expected an instance of an emitted class, got "):
            qc.accelerate(nothing)


def test_what_no_circuit_was_emitted_as(mixed: CompiledCircuit, imported: Import) -> None:
    file = imported(mixed)

    class Derived(file.Circuit):  # type: ignore[misc, name-defined]
        pass

    class Circuit(torch.nn.Module):
        circuit = "{}"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    message = (
        r"^[\w.<>]+ is no emitted class: give an instance of `Circuit` of a file that `quanta compile` has written"
    )
    for module in (torch.nn.Linear(2, 2), torch.nn.Sequential(instance(file, mixed)), Derived(), Circuit()):
        refused(module, message)


def edited(circuit: CompiledCircuit, imported: Import, change: Callable[[str], str]) -> Any:
    file = imported(circuit)
    path = Path(file.__file__)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return file


def test_a_file_that_was_edited_by_hand(imported: Import) -> None:
    circuit = compile_circuit(file_of("4x3", [[0, 1]], name="edited-by-hand"))
    file = edited(circuit, imported, lambda text: text.replace("return x.view", "return 2 * x.view"))
    refused(instance(file, circuit), f"^{re.escape(file.__file__)} was edited by hand, and the engines, which go by")


@pytest.mark.parametrize("change", ["source", "circuit"])
def test_a_file_of_another_version(imported: Import, change: str) -> None:
    circuit = compile_circuit(file_of("4x3", [[0, 1]], name=f"another-{change}"))

    def other(text: str) -> str:
        body = text.partition("\n")[2]
        body = body.replace("return x.view", "return 1 * x.view") if change == "source" else body
        body = body.replace('"kind": "dense"', '"kind": "denser"') if change == "circuit" else body
        return sealed(body)

    edited(circuit, imported, other)
    path = Path(sys.modules[circuit.stem].__file__ or "")
    del sys.modules[circuit.stem]
    spec = importlib.util.spec_from_file_location(circuit.stem, path)
    assert spec is not None
    assert spec.loader is not None
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    why = {
        "source": "is not what this version of quanta-compiler writes",
        "circuit": "holds a circuit that cannot be read here:\n<dict>: gates.0..kind: unknown kind 'denser'",
    }
    refused(instance(file, circuit), f"^{re.escape(str(path))} {why[change]}")


def test_what_torch_compile_has_taken_hold_of(mixed: CompiledCircuit, imported: Import) -> None:
    module = instance(imported(mixed), mixed)
    message = r"^the module is compiled by torch.compile, which .* torch.compile\(accelerate\(module\)\)$"
    refused(torch.compile(module, backend="eager"), message)
    module.compile(backend="eager")
    refused(module, message)


def test_an_instance_whose_forward_pass_was_replaced(mixed: CompiledCircuit, imported: Import) -> None:
    module = instance(imported(mixed), mixed)
    module.forward = module.forward
    refused(module, "^something has replaced the forward pass of this instance: accelerate it before that$")


def test_an_engine_that_does_not_exist_is_told_when_it_computes(
    mixed: CompiledCircuit, imported: Import, name_engine: Callable[[str], None]
) -> None:
    name_engine("gpu")
    module = qc.accelerate(instance(imported(mixed), mixed), backend="fused")
    with pytest.raises(EngineError, match=r"^QUANTA_ENGINE names no engine, 'gpu'"):
        module(vectors(mixed, 2))
