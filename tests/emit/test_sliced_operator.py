"""`operator()` built slice by slice: the same matrix and gradients by every slicing."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, peak_meter, plain_matrix, scaled_module
from quick_seeds import every_second
from random_circuits import error, file_of, random_file
from sliced_circuits import sliced
from torch.utils.checkpoint import checkpoint

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.reference import reference_operator

SEEDS = [*every_second(range(45)), 65, 90]


def gradients(module: torch.nn.Module, twice: bool = False) -> list[torch.Tensor]:
    """Return the gradients of something that is not linear in the operator, or those of their squares."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrix: torch.Tensor = module.operator()  # type: ignore[operator]
    if not matrix.requires_grad:
        return []
    weights = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = (matrix * weights.to(matrix)).sum() + (matrix**3).sum()
    found = torch.autograd.grad(value, wanted, create_graph=twice, allow_unused=True, materialize_grads=True)
    if twice:
        value = sum(((one**2).sum() for one in found), torch.zeros(()))
        if not value.requires_grad:
            return []
        found = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    return list(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_slicing_gives_the_oracles_matrix(seed: int) -> None:
    for circuit in sliced(seed):
        module = scaled_module(circuit)
        matrix = plain_matrix(random_file(seed), module)
        built = module.operator()  # type: ignore[operator]
        assert error(built, matrix) < 1e-10
        assert built.is_contiguous()
        assert error(module._operator_at_once(), matrix) < 1e-10  # type: ignore[operator]


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_and_their_gradients_are_those_of_the_matrix_built_at_once(seed: int) -> None:
    for circuit in sliced(seed)[:2]:
        for twice in (False, True):
            mine, theirs = gradients(scaled_module(circuit), twice), gradients(scaled_module(compiled(seed)), twice)
            assert len(mine) == len(theirs)
            for one, other in zip(mine, theirs, strict=True):
                assert error(one, other, 1e-3) < 1e-8


def test_only_what_trains_gets_gradients(medium: CompiledCircuit) -> None:
    module = scaled_module(medium)
    module.get_parameter("gates.g1").requires_grad_(False)
    module.operator().square().sum().backward()  # type: ignore[operator]
    assert [parameter.grad is None for parameter in module.parameters()] == [False, True, False]
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    assert not module.operator().requires_grad  # type: ignore[operator]


def test_gradients_keep_to_what_the_matrix_was_built_from(medium: CompiledCircuit) -> None:
    """Slices are made again in backward: from the gates of then, or not at all."""
    module = scaled_module(medium)
    wanted = list(module.parameters())
    expected = torch.autograd.grad(module.operator().square().sum(), wanted)  # type: ignore[operator]
    given = {name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()}
    other = scaled_module(medium, seed=5)

    class Squares(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.circuit = other

        def forward(self) -> torch.Tensor:
            matrix: torch.Tensor = self.circuit.operator()  # type: ignore[operator]
            return matrix.square().sum()

    called = torch.func.functional_call(Squares(), {f"circuit.{name}": value for name, value in given.items()}, ())
    for mine, theirs in zip(torch.autograd.grad(called, list(given.values())), expected, strict=True):
        assert error(mine, theirs) < 1e-12
    value = module.operator().square().sum()  # type: ignore[operator]
    with torch.no_grad():
        wanted[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_gradients_under_checkpoint_and_saved_tensor_hooks(medium: CompiledCircuit) -> None:
    module: Any = scaled_module(medium)
    wanted = list(module.parameters())
    expected = torch.autograd.grad(module.operator().square().sum(), wanted)
    again: Any = checkpoint(module.operator, use_reentrant=False)
    for mine, theirs in zip(torch.autograd.grad(again.square().sum(), wanted), expected, strict=True):
        assert error(mine, theirs) < 1e-12
    with torch.autograd.graph.save_on_cpu():
        found = torch.autograd.grad(module.operator().square().sum(), wanted)
    for mine, theirs in zip(found, expected, strict=True):
        assert error(mine, theirs) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_and_low_precision(medium: CompiledCircuit, dtype: torch.dtype) -> None:
    module: Any = scaled_module(medium, dtype)
    matrix = reference_operator(module)
    with torch.autocast("cpu", torch.bfloat16):
        built = module.operator()
        built.float().square().sum().backward()
    assert built.dtype == dtype
    assert error(built, matrix) < 0.02
    assert all(bool(parameter.grad.isfinite().all()) for parameter in module.parameters())


def test_gradients_in_bfloat16_are_not_summed_in_bfloat16(medium: CompiledCircuit) -> None:
    errors: list[float] = []
    for name in ("operator", "_operator_at_once"):
        module: Any = scaled_module(medium, torch.bfloat16)
        exact: Any = copy.deepcopy(module).double()
        weights = torch.randn(512, 512, generator=torch.Generator().manual_seed(4)).bfloat16()
        getattr(module, name)().backward(weights)
        exact.operator().backward(weights.double())
        pairs = zip(module.parameters(), exact.parameters(), strict=True)
        errors.append(max(error(mine.grad, theirs.grad) for mine, theirs in pairs))
    in_slices, at_once = errors
    assert in_slices < 1.5 * at_once


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_whole(medium: CompiledCircuit, backend: str) -> None:
    module: Any = scaled_module(medium)
    expected = gradients(module)
    whole: Any = torch.compile(module.operator, fullgraph=True, backend=backend)
    assert error(whole(), module.operator()) < 1e-12
    fast = copy.copy(module)
    fast.operator = whole
    for mine, theirs in zip(gradients(fast), expected, strict=True):
        assert error(mine, theirs) < 1e-12
    weight = torch.zeros(512, 512, dtype=torch.float64)
    with torch.no_grad():
        whole(add_to=weight, scale=2.0)
    assert error(weight, 2 * module.operator()) < 1e-12


def test_export_of_a_module_that_builds_its_operator(medium: CompiledCircuit) -> None:
    class Weight(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.circuit = scaled_module(medium)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            matrix: torch.Tensor = self.circuit.operator()  # type: ignore[operator]
            return x @ matrix.T

    x = torch.randn(3, 512, dtype=torch.float64)
    exported = torch.export.export(Weight(), (x,))
    assert error(exported.module()(x), Weight()(x)) < 1e-12


# Memory with gradients, and the source


@pytest.mark.parametrize("layout", ["8x8x8", "16x8x8"])
def test_recording_gradients_needs_no_second_matrix_either(layout: str) -> None:
    circuit = compile_circuit(file_of(layout, ["all_pairs"]))
    module: Any = scaled_module(circuit, torch.float32)
    own = 4 * circuit.spec.in_features * circuit.spec.out_features
    gradient = torch.ones(circuit.spec.out_features, circuit.spec.in_features)
    with peak_meter(module, gradient) as meter:
        built = module.operator()
        assert meter.peak <= 1.25 * own
        built.backward(gradient)
    # What the slices' gates get their gradients from, beside the matrix itself.
    assert meter.peak <= 1.5 * own


def test_sources_are_the_same_and_satisfy_mypy_strict(
    medium: CompiledCircuit, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert compile_circuit(file_of("8x8x8", ["all_pairs"])).source == medium.source
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("mypy")
    large = compile_circuit(file_of("16x16x8x8", ["all_pairs"]))
    assert large.source.count("_require_memory(") == 3
    lora = compile_circuit(file_of(512, [{"axes": [0], "kind": "lowrank", "rank": 4}]))
    small = [circuit for seed in range(6) for circuit in sliced(seed)]
    for number, circuit in enumerate([medium, large, lora, *small]):
        (tmp_path / f"sliced_{number}.py").write_text(circuit.source, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(cache), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stdout


def test_gates_may_be_called_as_a_slice_calls_its_own() -> None:
    names = ["i", "w1", "gate_i", "parts", "torch", "matrix"]
    gates: list[dict[str, Any]] = [{"axes": [0, 1], "name": name} for name in names]
    gates += [{"axes": [1, 2], "kind": "lowrank", "rank": 2, "name": name} for name in ("x", "b_x", "a_x")]
    circuit = compile_circuit(file_of("8x8x8", gates))
    assert circuit.report.operator.slices > 1
    module: Any = scaled_module(circuit)
    assert error(module.operator(), reference_operator(module)) < 1e-12
