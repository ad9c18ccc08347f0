"""An operator in slices under torch.func, and differentiated forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled_circuits import scaled_module
from random_circuits import error, file_of
from sliced_circuits import all_slicings, in_slices, sliced

from quanta_compiler.driver import CompiledCircuit, compile_circuit

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
