"""Whose memory a module reads and returns: parameters in any order of memory; results that are nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, scaled_module
from quick_seeds import every_second
from random_circuits import error, file_of
from rotation_circuits import CIRCUITS, rotation_circuit
from sliced_circuits import sliced

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.nn import FittedCircuit
from quanta_compiler.runtime.backends import BACKENDS

# Parameters


def _reversed(tensor: torch.Tensor) -> torch.Tensor:
    order = list(reversed(range(tensor.dim())))
    return tensor.permute(order).contiguous().permute(order)


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return _with_gaps(tensor) if tensor.dim() < 2 else tensor.movedim(-2, -1).contiguous().movedim(-1, -2)


def _with_gaps(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


def _results(module: Any, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield what a module computes, the gradients of its parameters included."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for result in (module(x), module(x[:1]), module.operator()):
        yield result
        if result.requires_grad:
            yield from torch.autograd.grad((result**3).sum(), wanted, materialize_grads=True, allow_unused=True)


def assert_any_order_will_do(circuit: CompiledCircuit, backend: str) -> None:
    """Give a module its parameters in other orders of memory, as `load_state_dict(assign=True)` does."""
    plain = scaled_module(circuit)
    x = torch.randn(3, circuit.spec.in_features, dtype=torch.float64)
    expected = list(_results(plain, x))
    for reorder in (_reversed, _channels_last, _with_gaps):
        module: Any = circuit.module(dtype=torch.float64, backend=backend)
        module.load_state_dict({key: reorder(tensor) for key, tensor in plain.state_dict().items()}, assign=True)
        module.gates.requires_grad_(True)
        for name, parameter in plain.named_parameters():
            module.get_parameter(name).requires_grad_(parameter.requires_grad)
        for mine, wanted in zip(_results(module, x), expected, strict=True):
            assert error(mine, wanted, floor=1e-3) < 1e-11


@pytest.mark.parametrize("seed", every_second(range(40)))
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_parameters_in_any_order_of_memory(seed: int, backend: str) -> None:
    assert_any_order_will_do(compiled(seed), backend)
    for circuit in sliced(seed)[:1]:
        assert_any_order_will_do(circuit, "torch")


@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_angles_in_any_order_of_memory(name: str, backend: str) -> None:
    assert_any_order_will_do(rotation_circuit(name), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_converts_and_parametrizes_modules(backend: str) -> None:
    file = {"version": 1, "name": "test", "preset": "btt", "layout": "3x2x5", "rank": 2}
    module: Any = compile_circuit(file).module(dtype=torch.float64, backend=backend)
    x = torch.randn(4, 30, dtype=torch.float64)
    before = module(x), module.operator()
    module.to(memory_format=torch.channels_last)
    assert not all(parameter.is_contiguous() for parameter in module.parameters())
    assert error(module(x), before[0]) < 1e-12
    assert error(module.operator(), before[1]) < 1e-12
    module = compile_circuit(file_of("3x4x2", [[0, 2], {"axes": [1, 2], "to": [1, 4]}])).module(backend=backend)
    torch.nn.utils.parametrizations.orthogonal(module.gates, "g1")
    assert error(module(torch.eye(24)).T, module.operator()) < 1e-6


# Results

NOTHING = {
    "identity": file_of("4x3", [{"axes": [0, 1], "kind": "slice"}]),
    "other axes": file_of("4x3", [{"axes": [0, 1], "kind": "slice", "to": {"a": 2, "b": 6}}]),
    "cut": file_of("4x3", [{"axes": [0, 1], "kind": "slice", "to": [1, 5]}]),
    "cut axis": file_of("4x3", [{"axes": [0], "kind": "slice", "to": [2]}]),
    "padded": file_of("4x3", [{"axes": [1], "kind": "slice", "to": [5]}]),
    "permuted": file_of("4x3", [{"axes": [0], "kind": "slice"}], output=[1, 0]),
    "few inputs": file_of("4x3", [{"axes": [0], "kind": "slice"}], in_features=9),
    "many inputs": file_of("4x3", [{"axes": [0], "kind": "slice"}], in_features=15),
    "few outputs": file_of("4x3", [{"axes": [0], "kind": "slice"}], out_features=7),
    "many outputs": file_of("4x3", [{"axes": [0], "kind": "slice"}], out_features=14),
    "all of it": file_of("4x3", [{"axes": [0], "kind": "slice"}], in_features=15, out_features=9),
}
ONE_GATE = {
    "gate": file_of("4x3", [[0, 1]]),
    "permuted gate": file_of("4x3", [[0, 1]], output=[1, 0]),
    "cut gate": file_of("4x3", [[0, 1]], in_features=8, out_features=5),
    "diagonal": file_of("4x3", [{"axes": [0, 1], "kind": "diagonal"}]),
    "column": file_of(3, [{"axes": [0], "to": [1]}]),
    "constant": file_of(2, [{"axes": [0], "kind": "constant", "value": [[1, 2], [3, 4]]}]),
    "rotation": file_of(2, [{"axes": [0], "kind": "ry"}]),
    "sign": file_of("2x2", [{"axes": [0, 1], "kind": "cz"}]),
}


def _transformed(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.func.jvp(module, (x,), (x,))[0]


@pytest.mark.parametrize("name", [*NOTHING, *ONE_GATE])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recompute", [False, True])
def test_nobody_can_write_into_the_input_or_the_gates(name: str, backend: str, recompute: bool) -> None:
    circuit = compile_circuit({**NOTHING, **ONE_GATE}[name])
    module: Any = circuit.module(backend=backend, recompute=recompute)
    fitted = FittedCircuit(circuit.spec)
    tensors = {tensor: value.float() for tensor, value in fitted.draw(0).items()}
    runs = [module, _transformed(module), lambda x: fitted.apply(tensors, x, backend, recompute)]
    matrix = module.operator().detach().clone()
    for run in runs:
        for lead in ((4,), (1,), (), (2, 3), (0,)):
            x = torch.ones(*lead, circuit.spec.in_features)
            with torch.no_grad():
                run(x).fill_(7)
                assert bool((x == 1).all())
                module.operator().fill_(7)
                assert torch.equal(module.operator(), matrix)
        assert all(torch.equal(value, fitted.draw(0)[tensor].float()) for tensor, value in tensors.items())
    given = torch.ones(2, circuit.spec.in_features, requires_grad=True)
    y = module(given)
    y += 1
    (gradient,) = torch.autograd.grad(y.sum(), given)
    assert error(gradient, matrix.sum(0).expand(2, -1)) < 1e-6


def test_a_large_identity_is_not_copied_twice() -> None:
    source = compile_circuit(file_of("4x4", [[0], [1]])).source
    assert ".clone()" not in source
    assert compile_circuit(NOTHING["padded"]).source.count(".clone()") == 0
    assert compile_circuit(NOTHING["permuted"]).source.count(".clone()") == 0
    assert compile_circuit(NOTHING["identity"]).source.count(".clone()") == 1


def _added(y: torch.Tensor) -> torch.Tensor:
    y += 2
    return y.mul_(3)


WRITERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "added": _added,
    "relu": torch.nn.ReLU(inplace=True),
    "dropout": torch.nn.Dropout(0.4, inplace=True),
    "row": lambda y: y.index_fill_(0, torch.tensor([1]), 5),
    "part": lambda y: y[:, 2:].sigmoid_(),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("backend", [*BACKENDS, "portable"])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_writes_into_the_output_trains(
    writer: str, backend: str, recompute: bool, name_engine: Callable[[str], None]
) -> None:
    circuit = compile_circuit(file_of("4x3x2", [[0, 2], [1]]))
    plain = circuit.module(backend="torch")
    module: Any = circuit.module(backend="fused" if backend == "portable" else backend, recompute=recompute)
    if backend == "portable":
        name_engine("portable")
    for lead in ((5,), (2, 3)):
        x = torch.randn(*lead, 24, requires_grad=True)
        found = []
        for one, copied in ((plain, True), (module, False)):
            torch.manual_seed(1)
            for autocast in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    y = one(x)
                    y = WRITERS[writer](y.clone() if copied else y)
                found.append(torch.autograd.grad(y.float().square().sum(), [x, *one.parameters()]))
        half = len(found) // 2
        for place, (expected, mine) in enumerate(zip(found[:half], found[half:], strict=True)):
            for first, second in zip(expected, mine, strict=True):
                assert error(second, first) < (0.1 if place else 1e-5)


def test_what_writes_into_an_operator_trains() -> None:
    # 24 x 24 at once, 512 x 512 in slices.
    for file in (file_of("4x3x2", [[0, 2]]), file_of("8x8x8", ["all_pairs"])):
        module: Any = compile_circuit(file).module()
        expected = torch.autograd.grad((module.operator() * 3).square().sum(), list(module.parameters()))
        matrix = module.operator()
        matrix *= 3
        found = torch.autograd.grad(matrix.square().sum(), list(module.parameters()))
        assert all(error(mine, wanted) < 1e-5 for mine, wanted in zip(found, expected, strict=True))
