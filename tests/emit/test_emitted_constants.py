"""What the file fixes: in no state dict and in no buffer, so that whoever fills a module cannot lose it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import vectors
from plain_oracle import plain_operator
from random_circuits import error, file_of
from torch._subclasses.fake_tensor import FakeTensorMode

from quanta_compiler.driver import compile_circuit
from quanta_compiler.nn import FittedCircuit
from quanta_compiler.runtime.backends import BACKENDS

FIXED = {"axes": [1], "kind": "constant", "value": [[0.3, 2, 0], [1, -0.7, 4]], "to": [2], "name": "fixed"}
CIRCUITS = {
    "with a gate": file_of("4x3", [[0], FIXED]),
    "before a gate": file_of("4x3", [FIXED, {"axes": [0, 1], "kind": "diagonal"}]),
    "beside rotations": file_of("2x3x2", [{"axes": [0], "kind": "ry"}, FIXED, {"axes": [0, 2], "kind": "cz"}]),
    # Only the operator is made from a one.
    "one": file_of("4x3x2", [{"axes": [0, 1], "kind": "slice", "to": [4, 2]}, [0]]),
    "alone": file_of("4x3", [FIXED]),
    "signs alone": file_of("2x3", [{"axes": [0, 1], "kind": "cz"}]),
    "nothing alone": file_of("4x3", [{"axes": [0, 1], "kind": "slice", "to": [3, 2]}]),
}


@pytest.fixture(params=CIRCUITS)
def file(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return every circuit in turn."""
    return CIRCUITS[request.param]


def assert_right(file: dict[str, Any], module: Any, close: float = 1e-6) -> None:
    """Compare forward and `operator()` with the oracle."""
    matrix = torch.from_numpy(
        plain_operator(file, {key: value.double().numpy() for key, value in module.state_dict().items()})
    )
    dtype = next((tensor.dtype for tensor in [*module.parameters(), *module.buffers()]), torch.float32)
    x = torch.randn(5, module.in_features, dtype=dtype)
    assert module.operator().dtype == dtype
    assert error(module.operator(), matrix) < close
    assert error(module(x), x.double() @ matrix.T) < close


def emptied(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module as one that was made on meta: noise in all that somebody else has to fill."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(float("nan"))
    return module


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_from_meta_is_whole_once_its_parameters_are(file: dict[str, Any], backend: str) -> None:
    circuit = compile_circuit(file)
    state = circuit.module(seed=3).state_dict()
    assert not any("fixed" in key or "one" in key or "like" in key for key in state)
    module = emptied(circuit.module(device="meta", backend=backend))
    for key, tensor in state.items():
        module.get_parameter(key).data.copy_(tensor)  # past `load_state_dict`, as trainers and loaders do
    assert_right(file, module)
    module = emptied(torch.nn.ModuleList([circuit.module(backend=backend)]).to("meta"))
    module.load_state_dict({f"0.{key}": tensor for key, tensor in state.items()})
    assert_right(file, module[0])  # type: ignore[index]
    module = circuit.module(device="meta", backend=backend)
    module.load_state_dict(state, assign=True)
    assert_right(file, module)


@pytest.mark.slow
def test_accelerate_loads_a_model_that_holds_a_circuit(file: dict[str, Any], tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    circuit = compile_circuit(file)
    saved = torch.nn.Sequential(torch.nn.Linear(circuit.spec.in_features, circuit.spec.in_features), circuit.module())
    torch.save(saved.state_dict(), tmp_path / "pytorch_model.bin")
    with accelerate.init_empty_weights():
        model = torch.nn.Sequential(
            torch.nn.Linear(circuit.spec.in_features, circuit.spec.in_features), circuit.module(device="cpu")
        )
    model = accelerate.load_checkpoint_and_dispatch(model, str(tmp_path / "pytorch_model.bin"), device_map={"": "cpu"})
    x = vectors(circuit, 3, dtype=torch.float32)
    assert error(model(x), saved(x)) < 1e-6
    assert_right(file, model[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_constants_follow_the_parameters(file: dict[str, Any], backend: str) -> None:
    circuit = compile_circuit(file)
    module = circuit.module(backend=backend)
    assert_right(file, module)
    assert_right(file, module.double(), 1e-12)
    assert_right(file, module.bfloat16(), 0.02)
    assert_right(file, module.float())
    assert module.to("meta").operator().is_meta  # type: ignore[operator]
    assert module(torch.empty(2, circuit.spec.in_features, device="meta")).is_meta
    for other in (copy.deepcopy(circuit.module(backend=backend)), pickle.loads(pickle.dumps(circuit.module()))):
        assert_right(file, other)


def test_a_copy_of_a_module_that_was_used_is_used_elsewhere() -> None:
    module: Any = compile_circuit(CIRCUITS["alone"]).module()
    assert module.constant_fixed is module.constant_fixed  # made once
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_right(CIRCUITS["alone"], other.double(), 1e-12)
        assert module.constant_fixed.dtype == torch.float32
        with torch.no_grad():
            other.operator().zero_()
        assert_right(CIRCUITS["alone"], other, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_compile_export_and_autocast(file: dict[str, Any], backend: str) -> None:
    circuit = compile_circuit(file)
    x = vectors(circuit, 4, dtype=torch.float32)
    for used_before in (False, True):
        torch._dynamo.reset()
        module: Any = circuit.module(backend=backend)
        if used_before:
            assert_right(file, module)
        expected = circuit.module(backend="torch")(x)
        fast: Any = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert error(fast(x), expected) < 1e-6
        build: Any = torch.compile(module.operator, fullgraph=True, backend="aot_eager")
        assert error(build(), module.operator()) < 1e-6
        exported = torch.export.export(circuit.module(backend=backend), (x,)).module()
        assert error(exported(x), expected) < 1e-6
        with torch.autocast("cpu", torch.bfloat16):
            assert error(module(x), expected) < 0.02


def _in_inference_mode(module: Any, x: torch.Tensor) -> None:
    with torch.inference_mode():
        module(x)
        module.operator()


def _in_a_transform(module: Any, x: torch.Tensor) -> None:
    torch.func.grad(lambda x: module(x).sum())(x)
    torch.func.vmap(module)(x)
    torch.func.grad(lambda y: (module.operator() * y).sum())(torch.ones(()))


def _of_stand_ins(module: Any, x: torch.Tensor) -> None:
    # The kernel has tensors of its own for rotations; tracers allow them.
    with FakeTensorMode(allow_non_fake_inputs='"ry"' in module.circuit) as mode:
        held = [*module.named_parameters(), *module.named_buffers()]
        state: dict[str, torch.Tensor] = {name: mode.from_tensor(tensor) for name, tensor in held}
        torch.func.functional_call(module, state, mode.from_tensor(x))


def _under_a_default_device(module: Any, x: torch.Tensor) -> None:
    with torch.device("meta"):
        module(x)
        module.operator()


@pytest.mark.parametrize(
    "first", [_in_inference_mode, _in_a_transform, _of_stand_ins, _under_a_default_device], ids=lambda use: use.__name__
)
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_the_first_use_decides_nothing(
    file: dict[str, Any], backend: str, first: Callable[[Any, torch.Tensor], None]
) -> None:
    module = compile_circuit(file).module(backend=backend)
    x = torch.randn(4, int(module.in_features))  # type: ignore[arg-type]
    for _ in range(2):
        first(module, x)
        given = x.clone().requires_grad_()
        module(given).square().sum().backward()
        assert given.grad is not None
        matrix: torch.Tensor = module.operator()  # type: ignore[operator]
        assert error(given.grad, 2 * given @ matrix.T @ matrix) < 1e-5
        assert_right(file, module)


def test_an_adapter_holds_what_it_has_always_held() -> None:
    fitted = FittedCircuit(compile_circuit(CIRCUITS["with a gate"]).spec)
    assert fitted.shapes == {"g0": (4, 4), "constant-fixed": (2, 3)}
    assert fitted.trained == ("g0",)
    assert fitted.fixed == ("constant-fixed",)
    tensors = fitted.draw(seed=0)
    assert torch.equal(tensors["constant-fixed"], torch.tensor(FIXED["value"], dtype=torch.float64))
    ones = FittedCircuit(compile_circuit(CIRCUITS["one"]).spec)
    assert ones.shapes == {"g1": (4, 4), "one": ()}
    assert ones.fixed == ("one",)
    assert ones.draw(seed=0)["one"] == 1
    # The numbers that are passed in are what is applied, not those of the file.
    other = {**{name: tensor.float() for name, tensor in tensors.items()}, "constant-fixed": torch.ones(2, 3)}
    x = torch.randn(2, 12)
    for backend in BACKENDS:
        expected = (x.view(2, 4, 3).sum(2) @ other["g0"].T)[..., None].expand(2, 4, 2).flatten(1)
        assert error(fitted.apply(other, x, backend), expected) < 1e-6


@pytest.mark.slow
def test_transformers_loads_a_model_that_holds_a_circuit(file: dict[str, Any], tmp_path: Path) -> None:
    from transformers import PretrainedConfig, PreTrainedModel

    circuit = compile_circuit(file)

    class Model(PreTrainedModel):  # type: ignore[misc]
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.circuit = circuit.module()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.post_init()

        def _init_weights(self, module: torch.nn.Module) -> None:
            pass

    Model(PretrainedConfig()).save_pretrained(tmp_path)
    assert_right(file, Model.from_pretrained(tmp_path).circuit)
