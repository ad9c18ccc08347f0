"""The parameters of an emitted module: how they are drawn, and what happens on the meta device."""

from __future__ import annotations

import pytest
import torch
from compiled_circuits import peak_bytes
from mixed_circuit import MIXED
from random_circuits import error, file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.runtime.loading import load_class


def test_a_wide_circuit_on_the_meta_device_allocates_nothing() -> None:
    circuit = compile_circuit(file_of([4096, 4096], [[0], {"axes": [1], "to": [4096]}], init="orthogonal"))
    assert circuit.spec.in_features == 2**24
    module = circuit.module(device="meta")
    assert all(parameter.is_meta for parameter in module.parameters())
    assert module(torch.empty(2, 2**24, device="meta")).shape == (2, 2**24)
    direct = load_class(circuit.source)

    def construct() -> object:
        return direct(device="meta", dtype=torch.bfloat16)

    with torch.device("cpu"):
        assert peak_bytes(torch.nn.Module(), None, construct) <= 2 * 2 * 4096 * 4096
        assert all(tensor.is_meta for tensor in construct().parameters())  # type: ignore[attr-defined]


def test_meta_then_empty_then_reset_gives_the_parameters_of_the_seed(mixed: CompiledCircuit) -> None:
    module = load_class(mixed.source)(device="meta").to_empty(device="cpu")
    module.reset_parameters(torch.Generator().manual_seed(7))
    expected = mixed.module(seed=7, backend="torch")
    for key, value in expected.state_dict().items():
        assert torch.equal(module.state_dict()[key], value)
    x = torch.randn(2, 20)
    assert torch.equal(module(x), expected(x))


@pytest.mark.parametrize("scheme", ["kaiming_uniform", "xavier_uniform", "normal", "orthogonal", "identity", "zeros"])
def test_a_seed_means_the_same_and_leaves_the_global_generator_alone(scheme: str) -> None:
    circuit = compile_circuit({**MIXED, "init": scheme})
    before = torch.random.get_rng_state()
    first, second = circuit.module(seed=0), circuit.module(seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value)
    double = circuit.module(seed=0, dtype=torch.float64)
    half = circuit.module(seed=0, dtype=torch.bfloat16)
    for key, value in first.state_dict().items():
        # Drawn in float32, then cast.
        assert torch.equal(double.state_dict()[key], value.double())
        assert torch.equal(half.state_dict()[key], value.bfloat16())
    if scheme not in ("identity", "zeros"):
        assert not torch.equal(circuit.module(seed=1).state_dict()["gates.dense"], first.state_dict()["gates.dense"])


def test_constructing_draws_from_the_global_generator_as_torch_modules_do(mixed: CompiledCircuit) -> None:
    circuit_class = load_class(mixed.source)
    torch.manual_seed(3)
    first = circuit_class()
    torch.manual_seed(3)
    second = circuit_class()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(circuit_class().get_parameter("gates.dense"), first.get_parameter("gates.dense"))


@pytest.mark.parametrize("scheme", ["kaiming_uniform", "xavier_uniform", "normal", "orthogonal", "identity", "zeros"])
def test_schemes_draw_what_they_say(scheme: str) -> None:
    gates = [
        {"axes": [0], "to": [40], "name": "dense"},
        {"axes": [0], "per": [1], "name": "blocks"},
        {"axes": [0], "kind": "lowrank", "rank": 20, "to": [60], "name": "low"},
        {"axes": [0], "kind": "diagonal", "name": "diagonal"},
    ]
    state = compile_circuit(file_of("60x3", gates, init=scheme)).module().state_dict()
    dense, blocks, diagonal = state["gates.dense"], state["gates.blocks"], state["gates.diagonal"]
    b, a = state["gates.low.B"], state["gates.low.A"]
    assert (dense.shape, blocks.shape, b.shape, a.shape) == ((40, 60), (3, 40, 40), (60, 20), (20, 40))
    if scheme == "zeros":
        assert not any(tensor.any() for tensor in (dense, blocks, diagonal, b))
        assert 0 < float(a.abs().max()) <= 40**-0.5
    elif scheme == "identity":
        assert torch.equal(dense, torch.eye(40, 60))
        assert torch.equal(blocks, torch.eye(40).expand(3, 40, 40))
        assert torch.equal(diagonal, torch.ones(60))
        assert torch.equal(b @ a, torch.eye(60, 20) @ torch.eye(20, 40))
    elif scheme == "orthogonal":
        assert error(dense @ dense.T, torch.eye(40)) < 1e-5
        assert error(blocks @ blocks.mT, torch.eye(40).expand(3, 40, 40)) < 1e-5
        assert error(b.T @ b, torch.eye(20)) < 1e-5
        assert not torch.allclose(blocks[0], blocks[1])
    else:
        columns = {"dense": 60, "blocks": 40, "diagonal": 1, "B": 20, "A": 40}
        rows = {"dense": 40, "blocks": 40, "diagonal": 60, "B": 60, "A": 20}
        for name, tensor in (("dense", dense), ("blocks", blocks), ("diagonal", diagonal), ("B", b), ("A", a)):
            if scheme == "normal":
                assert float(tensor.std()) == pytest.approx(0.02, rel=0.35)
                continue
            total = columns[name] if scheme == "kaiming_uniform" else (columns[name] + rows[name]) / 6
            bound = total**-0.5
            assert 0.8 * bound < float(tensor.abs().max()) <= bound


# What a module says of itself


@pytest.mark.parametrize("assign", [False, True])
def test_a_module_from_meta_has_its_constants_once_it_is_loaded(assign: bool) -> None:
    """Constants are in no state dict: `to_empty` and `assign=True` would leave garbage without a word."""
    file = {
        "version": 1,
        "name": "constant",
        "layout": 2,
        "gates": [[0], {"axes": [0], "kind": "constant", "value": [[1, 2], [3, 4]]}],
    }
    whole = compile_circuit(file).module()
    loaded = type(whole)(device="meta")
    if not assign:
        loaded = loaded.to_empty(device="cpu")
    loaded.load_state_dict(whole.state_dict(), assign=assign)
    x = torch.randn(3, 2)
    torch.testing.assert_close(loaded(x), whole(x))
