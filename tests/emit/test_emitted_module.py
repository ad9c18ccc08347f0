"""The emitted module as a citizen of torch: dtypes, compile, export, copies, state dicts, devices, seeds."""

from __future__ import annotations

import ast
import copy
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, plain_matrix, scaled_module
from drawn_kinds import KINDS
from mixed_circuit import MIXED
from plain_patterns import written_out
from random_circuits import error, file_of, random_file

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.reference import reference_operator
from quanta_compiler.runtime.loading import load_class

ROOT = Path(__file__).parents[2]


def imports(source: str) -> set[str]:
    tree = ast.parse(source)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("seed", range(40))
def test_a_source_imports_torch_alone_and_holds_one_class(seed: int) -> None:
    tree = ast.parse(compiled(seed).source)
    assert imports(compiled(seed).source) == {"torch"}
    kinds = [type(node) for node in tree.body]
    assert kinds == [ast.Expr, ast.Import, ast.ClassDef]
    assert isinstance(tree.body[2], ast.ClassDef)
    assert tree.body[2].name == "Circuit"
    assert compiled(seed).source.isascii()


STANDALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("quanta_compiler", "opt_einsum", "networkx", "pydantic", "yaml"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import torch
from test import Circuit
module = Circuit(dtype=torch.float64)
assert isinstance(module, torch.nn.Module)
module.load_state_dict(torch.load(sys.argv[1] + "/state.pt"))
torch.save((module(torch.eye(20, dtype=torch.float64)), module.operator()), sys.argv[1] + "/results.pt")
"""


def run_python(script: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_written_file_works_without_the_compiler(mixed: CompiledCircuit, tmp_path: Path) -> None:
    mixed.write(tmp_path)
    module = scaled_module(mixed)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    run_python(STANDALONE, str(tmp_path))
    applied, built = torch.load(tmp_path / "results.pt")
    assert error(applied.T, reference_operator(module)) < 1e-12
    assert error(built, reference_operator(module)) < 1e-12


def test_sources_satisfy_mypy_strict(mixed: CompiledCircuit, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    # Reading torch's own types takes 20 s, so they are kept between runs.
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("mypy")
    large = compile_circuit(file_of("4096x4096", [[0], [1]]))
    assert "_require_memory" in large.source
    # Several blocks of several gates.
    rotations = [compile_circuit(file_of(size, [{"axes": [0], "kind": "pauli"}])) for size in (512, 768)]
    for number, circuit in enumerate([mixed, large, *rotations, *(compiled(seed) for seed in range(8))]):
        (tmp_path / f"circuit_{number}.py").write_text(circuit.source, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(cache), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stdout


# Numbers


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_dtypes(mixed: CompiledCircuit, dtype: torch.dtype, close: float) -> None:
    module = scaled_module(mixed, dtype)
    assert {tensor.dtype for tensor in [*module.parameters(), *module.buffers()]} == {dtype}
    matrix = plain_matrix(MIXED, module)
    x = torch.randn(6, 20).to(dtype)
    result = module(x)
    assert result.dtype == dtype
    assert error(result, x.double() @ matrix.T) < close
    assert error(module.operator(), matrix) < close  # type: ignore[operator]
    cast = scaled_module(mixed, torch.float64).to(dtype)
    assert error(cast(x), x.double() @ matrix.T) < 2 * close


@pytest.mark.parametrize("seed", range(12))
def test_autocast_and_bfloat16_run_every_kind_of_gate(seed: int) -> None:
    module = scaled_module(compiled(seed), torch.float32)
    x = torch.randn(5, compiled(seed).spec.in_features, requires_grad=True)
    exact = module(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mine = module(x)
        built = module.operator()  # type: ignore[operator]
    assert mine.dtype in (torch.bfloat16, torch.float32)
    assert built.shape == (exact.shape[1], x.shape[1])
    if len(compiled(seed).spec.gates) < 12:
        assert error(mine, exact) < 0.1
    if mine.requires_grad:
        mine.float().sum().backward()
        assert x.grad is None or bool(x.grad.isfinite().all())
    half = module.to(torch.bfloat16)(x.detach().bfloat16())
    assert half.dtype == torch.bfloat16


# torch.compile and export


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_compile_whole(seed: int) -> None:
    module: Any = scaled_module(compiled(seed))
    x = torch.randn(5, compiled(seed).spec.in_features, dtype=torch.float64)
    fast: Any = torch.compile(module, fullgraph=True, backend="eager")
    assert error(fast(x), module(x)) < 1e-12
    build: Any = torch.compile(module.operator, fullgraph=True, backend="eager")
    assert error(build(), module.operator()) < 1e-12


def test_compile_with_gradients_and_a_batch_that_changes(mixed: CompiledCircuit) -> None:
    module = scaled_module(mixed)
    fast: Any = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (3, 7):
        x = torch.randn(batch, 2, 20, dtype=torch.float64)
        assert error(fast(x), module(x)) < 1e-12
        module.zero_grad()
        fast(x).sum().backward()
        found = {
            name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
        }
        module.zero_grad()
        module(x).sum().backward()
        assert found
        for name, gradient in found.items():
            mine = module.get_parameter(name).grad
            assert mine is not None
            assert error(gradient, mine) < 1e-12


@pytest.mark.parametrize("file", [MIXED, file_of("4x3x2x2", ["all_pairs"])], ids=["mixed", "all pairs"])
def test_export_with_a_dynamic_batch(file: dict[str, Any]) -> None:
    module = scaled_module(compile_circuit(file))
    width = int(module.in_features)  # type: ignore[arg-type]
    exported = torch.export.export(
        module, (torch.randn(4, width, dtype=torch.float64),), dynamic_shapes={"x": {0: torch.export.Dim("n")}}
    )
    x = torch.randn(9, width, dtype=torch.float64)
    assert error(exported.module()(x), module(x)) < 1e-12


# Copies


def assert_same(module: torch.nn.Module, other: torch.nn.Module) -> None:
    x = torch.randn(3, int(module.in_features), dtype=torch.float64)  # type: ignore[arg-type]
    assert error(other(x), module(x)) == 0
    assert list(other.state_dict()) == list(module.state_dict())
    assert {p.data_ptr() for p in module.parameters()}.isdisjoint(p.data_ptr() for p in other.parameters())


def test_deepcopy_and_pickle(mixed: CompiledCircuit) -> None:
    module = scaled_module(mixed)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is type(module)
        assert_same(module, other)
    inside = torch.nn.Sequential(module, torch.nn.Linear(9, 2, dtype=torch.float64))
    assert_same(module, copy.deepcopy(inside)[0])
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    assert_same(module, torch.load(stream, weights_only=False))


def test_pickle_crosses_processes(mixed: CompiledCircuit, tmp_path: Path) -> None:
    module = scaled_module(mixed)
    x = torch.randn(3, 20, dtype=torch.float64)
    (tmp_path / "module.pickle").write_bytes(pickle.dumps((module, x, module(x).detach())))
    script = (
        "import pickle, sys, torch\n"
        "module, x, expected = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert torch.equal(module(x), expected)\n"
        "assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)\n"
    )
    run_python(script, str(tmp_path / "module.pickle"), PYTHONPATH=str(ROOT))


def test_a_source_is_one_class_in_a_process(mixed: CompiledCircuit) -> None:
    module = mixed.module(backend="torch")
    assert type(module) is type(compile_circuit(MIXED).module(backend="torch")) is load_class(mixed.source)
    assert type(mixed.module()) is type(compile_circuit(MIXED).module())
    assert type(mixed.module()) is not type(compiled(0).module())


# State dicts


def test_keys_come_in_the_order_of_the_file(mixed: CompiledCircuit) -> None:
    module = mixed.module()
    assert {key: list(value.shape) for key, value in module.state_dict().items()} == {
        "gates.low.B": [12, 2],
        "gates.low.A": [2, 12],
        "gates.dense": [6, 6],
        "gates.phase": [4, 2],
        "gates.shared_later": [4, 4],
        "gates.factors.B": [5, 2, 1],
        "gates.factors.A": [5, 1, 2],
    }
    assert list(module.state_dict()) == [
        *("gates.low.B", "gates.low.A", "gates.dense", "gates.phase", "gates.shared_later"),
        *("gates.factors.B", "gates.factors.A"),
    ]
    assert not module.get_parameter("gates.phase").requires_grad


@pytest.mark.parametrize("seed", range(40))
def test_state_dict_lists_what_the_file_says(seed: int) -> None:
    module = compiled(seed).module()
    expected: list[str] = []
    for place, gate in enumerate(written_out(random_file(seed))["gates"]):
        name, kind = gate.get("name", f"g{place}"), gate.get("kind", "dense")
        if "share" in gate or not KINDS[kind].inits:
            continue
        expected += [f"gates.{name}.B", f"gates.{name}.A"] if kind == "lowrank" else [f"gates.{name}"]
    assert list(module.state_dict()) == expected
    assert sorted(name for name, _ in module.named_parameters()) == sorted(expected)


def test_state_dict_round_trip(mixed: CompiledCircuit) -> None:
    module, other = scaled_module(mixed), scaled_module(mixed, seed=5)
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert_same(module, other)
    outer, inner = (
        torch.nn.ModuleDict({"adapter": module}),
        torch.nn.ModuleDict({"adapter": scaled_module(mixed, seed=6)}),
    )
    assert list(outer.state_dict()) == [f"adapter.{key}" for key in module.state_dict()]
    inner.load_state_dict(outer.state_dict())
    assert_same(module, inner["adapter"])
    with pytest.raises(RuntimeError, match=r"gates\.dense"):
        other.load_state_dict({key: value for key, value in module.state_dict().items() if key != "gates.dense"})


# Devices and seeds


def test_the_header_says_what_it_was_compiled_from(mixed: CompiledCircuit) -> None:
    circuit = compile_circuit(MIXED, tokens=77)
    assert "Planned for 77 tokens" in circuit.source
    assert "Circuit test: 20 -> 9 features" in circuit.source
    module = circuit.module()
    assert module.in_features == 20
    assert module.out_features == 9
    again = compile_circuit(str(module.circuit).replace('{"version"', '{"version"', 1))
    assert again.source == circuit.source
    assert str(ROOT) not in circuit.source


@pytest.mark.parametrize("seed", range(40))
def test_the_carried_circuit_compiles_to_the_same_file(seed: int) -> None:
    text = load_class(compiled(seed).source).circuit
    assert compile_circuit(text).source == compiled(seed).source
    assert compile_circuit(text).report.to_json() == compiled(seed).report.to_json()
