"""`operator()` built slice by slice: the same matrix and gradients by every slicing, and added to a weight."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, peak_meter, plain_matrix, scaled_module
from quick_seeds import every_second
from random_circuits import error, file_of, random_file
from sliced_circuits import all_slicings, in_slices, sliced
from torch.utils.checkpoint import checkpoint

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.reference import reference_operator
from quanta_compiler.runtime.loading import load_class

SEEDS = [*every_second(range(45)), 65, 90]


@pytest.fixture(scope="module")
def medium() -> CompiledCircuit:
    """Return a circuit that is sliced without being asked: 512 x 512, 16 slices."""
    circuit = compile_circuit(file_of("8x8x8", ["all_pairs"]))
    assert circuit.report.operator.slices == 16
    return circuit


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


# The matrix


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
                assert error(one, other) < 1e-8


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


# Transformed by torch.func, and differentiated forward

ROTATED = compile_circuit(
    file_of(
        "2x2x6",
        [
            {"axes": [0], "kind": "ry"},
            {"axes": [0, 1], "kind": "cz"},
            {"axes": [1, 2], "kind": "pauli"},
            {"axes": [0, 2], "kind": "orthogonal"},
            {"axes": [2], "to": [5], "kind": "orthogonal", "map": "cayley", "rank_parameters": 2},
        ],
    )
)
# Untyped in torch.
forward_ad: Any = torch.autograd.forward_ad
jacobian: Any = torch.autograd.functional.jacobian
Along = Callable[[torch.Tensor], torch.Tensor]


def cubes(along: Along) -> Along:
    return lambda v: along(v).pow(3).sum()


TRANSFORMS: dict[str, Callable[[Along, torch.Tensor], Any]] = {
    "vjp": lambda along, v: torch.func.vjp(along, v)[1](torch.ones_like(along(v)))[0],
    "jvp": lambda along, v: torch.func.jvp(along, (v,), (v.flip(0),)),
    "vmap": lambda along, v: torch.func.vmap(along)(torch.stack([v, 2 * v, -v])),
    "jacfwd": lambda along, v: torch.func.jacfwd(along)(v),
    "jacrev": lambda along, v: torch.func.jacrev(lambda w: along(w)[:2, :2])(v),
    "hessian": lambda along, v: torch.func.hessian(cubes(along))(v),
    "jvp of grad": lambda along, v: torch.func.jvp(torch.func.grad(cubes(along)), (v,), (v,)),
    "grad of vmap": lambda along, v: torch.func.grad(lambda w: torch.func.vmap(along)(w).pow(3).sum())(v.expand(3, -1)),
    "vmap of grad": lambda along, v: torch.func.vmap(torch.func.grad(cubes(along)))(torch.eye(2)),
    "forward mode": lambda along, v: jacobian(along, v, vectorize=True, strategy="forward-mode"),
}


def flat(results: Any) -> torch.Tensor:
    return torch.cat([one.flatten() for one in (results if isinstance(results, tuple) else (results,))])


class Matrix(torch.nn.Module):
    """The matrix of a circuit as a module's output, for `functional_call`."""

    def __init__(self, circuit: torch.nn.Module, build: str) -> None:
        super().__init__()
        self.circuit = circuit
        self.build = build

    def forward(self) -> torch.Tensor:
        built: torch.Tensor = getattr(self.circuit, self.build)()
        return built


def moved(module: torch.nn.Module, build: str) -> Along:
    """Return the matrix of a circuit as a function of two numbers that move its gates."""
    gates = {f"circuit.{name}": value.detach() for name, value in module.named_parameters()}
    generator = torch.Generator().manual_seed(7)
    steps = {name: torch.randn(value.shape, dtype=value.dtype, generator=generator) for name, value in gates.items()}

    def along(v: torch.Tensor) -> torch.Tensor:
        given = {name: value * (1 + v[1]) + v[0] * steps[name] for name, value in gates.items()}
        result: torch.Tensor = torch.func.functional_call(Matrix(module, build), given, ())
        return result

    return along


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_of_a_matrix_in_slices_are_those_of_the_matrix_built_at_once(transform: str) -> None:
    apply, v = TRANSFORMS[transform], torch.tensor([0.5, -0.25], dtype=torch.float64)
    for circuit in (sliced(2)[0], sliced(65)[0], in_slices(ROTATED, all_slicings(ROTATED)[0])):
        module = scaled_module(circuit)
        found, expected = (apply(moved(module, build), v) for build in ("operator", "_operator_at_once"))
        assert error(flat(found), flat(expected)) < 1e-12


def test_a_direction_of_one_gate_is_that_of_small_steps(medium: CompiledCircuit) -> None:
    module: Any = scaled_module(medium)
    with torch.no_grad():
        gate = module.gates["g1"]
        step = torch.randn(gate.shape, dtype=gate.dtype)
        ends = []
        for size in (1e-6, -2e-6):
            gate += size * step
            ends.append(module.operator())
        gate += 1e-6 * step
        expected = (ends[0] - ends[1]) / 2e-6
        with forward_ad.dual_level():
            del module.gates["g1"]
            module.gates._parameters["g1"] = forward_ad.make_dual(gate, step)
            found = forward_ad.unpack_dual(module.operator()).tangent
    assert error(found, expected) < 1e-8


# Added to a weight


@pytest.mark.parametrize("seed", SEEDS)
def test_adding_is_adding_the_matrix(seed: int) -> None:
    for circuit in (compiled(seed), *sliced(seed)):
        module = scaled_module(circuit)
        matrix = plain_matrix(random_file(seed), module)
        weight = torch.randn(matrix.shape, dtype=torch.float64)
        expected = weight - 0.5 * matrix
        given = weight.clone()
        added = module.operator(add_to=given, scale=-0.5)  # type: ignore[operator]
        assert added is given
        assert error(given, expected) < 1e-10
        assert not given.requires_grad
        turned = weight.t().contiguous().t()
        module.operator(add_to=turned, scale=-0.5)  # type: ignore[operator]
        assert error(turned, expected) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_sum_is_rounded_once(medium: CompiledCircuit, dtype: torch.dtype) -> None:
    """Computed in the gates' float32, autocast or not, added, and rounded to what the weight has."""
    module: Any = scaled_module(medium, torch.float32)
    weight = torch.nn.Parameter(torch.randn(512, 512, generator=torch.Generator().manual_seed(2)).to(dtype))
    start = weight.detach().clone()
    with torch.autocast("cpu", torch.bfloat16):
        module.operator(add_to=weight, scale=0.25)
    with torch.no_grad():
        expected = (start.double() + 0.25 * module.operator().double()).to(dtype)
    if dtype == torch.bfloat16:
        # Where the sum in float32 lies within its own rounding of the middle between two numbers, either may be taken.
        assert float((weight == expected).double().mean()) > 0.999
        assert error(weight, expected) < 1e-4
    else:
        assert error(weight, expected) < (1e-7 if dtype == torch.float32 else 1e-8)
    assert weight.grad_fn is None
    assert weight.requires_grad


def test_adding_holds_no_second_matrix(medium: CompiledCircuit) -> None:
    lora = compile_circuit(file_of(512, [{"axes": [0], "kind": "lowrank", "rank": 4}]))
    for circuit in (medium, lora):
        module: Any = scaled_module(circuit, torch.float32)
        weight = torch.zeros(512, 512)
        with peak_meter(module, weight) as meter:
            module.operator(add_to=weight)
        assert meter.peak <= 0.25 * weight.nbytes
        assert error(weight, module.operator()) < 1e-6


@pytest.mark.parametrize("shape", [(512, 511), (512,), (1, 512, 512)], ids=str)
def test_another_shape_is_refused_and_nothing_changed(medium: CompiledCircuit, shape: tuple[int, ...]) -> None:
    small = compile_circuit(file_of("2x3", [[0, 1]]))
    for circuit, name in ((medium, r"\[512, 512\]"), (small, r"\[6, 6\]")):
        weight = torch.ones(shape)
        listed = str(list(shape)).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(ValueError, match=f"expected {name} to add to, got {listed}"):
            circuit.module().operator(add_to=weight)  # type: ignore[operator]
        assert bool((weight == 1).all())


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


def test_memory_is_looked_at_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = compile_circuit(file_of("16x16x16x8", ["all_pairs"]))
    module = load_class(circuit.source)(device="meta")
    asked: list[int] = []

    def refuse(numbers: int) -> None:
        asked.append(numbers)
        raise MemoryError

    monkeypatch.setattr(module, "_require_memory", refuse)
    with pytest.raises(MemoryError):
        module.operator()
    with pytest.raises(MemoryError):
        module.operator(add_to=torch.empty(1, 1).expand(32768, 32768))
    elements = 32768 * 32768
    assert asked == [circuit.report.operator.peak_bytes // 4, circuit.report.operator.peak_bytes // 4 - elements]
    assert asked[1] <= elements // 4
