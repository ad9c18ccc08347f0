"""Small circuits of every kind of rotation, and their modules with numbers that are worth comparing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from compiled_circuits import plain_matrix
from random_circuits import file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.spec import load_spec


def _one(kind: str, columns: int, rows: int | None = None, **keys: Any) -> dict[str, Any]:
    """Return a file with one gate, `columns -> rows`."""
    to = {} if rows is None else {"to": [rows]}
    return file_of(columns, [{"axes": [0], "kind": kind, **to, **keys}])


SQUARE: dict[str, dict[str, Any]] = {
    "ry": _one("ry", 2),
    "two_design": file_of("x".join("22222"), [{"pattern": "two_design", "layers": 2}]),
    "two_design-any": file_of("3x1x4x2", [{"pattern": "two_design"}]),
    "exp": _one("orthogonal", 6),
    "cayley": _one("orthogonal", 6, map="cayley"),
    "exp-few": _one("orthogonal", 6, rank_parameters=2),
    "householder": _one("orthogonal", 6, map="householder"),
    "householder-few": _one("orthogonal", 7, map="householder", rank_parameters=2),
    "planes": _one("orthogonal", 6, map="givens"),
    "planes-few": _one("orthogonal", 7, map="givens", rank_parameters=2),
    "givens-9": _one("givens", 9),
    "givens-pairs": _one("givens", 6, pairs=[[3, 0], [1, 5], [0, 2], [4, 5], [1, 2], [3, 4]]),
    "pauli-8": _one("pauli", 8),
    "pauli-16-deep": _one("pauli", 16, layers=3),
    "pauli-few": _one("pauli", 16, layers=2, rank_parameters=1),
    "pauli-7": _one("pauli", 7),
    "pauli-11-few": _one("pauli", 11, layers=2, rank_parameters=2),
    "pauli-flat": _one("pauli", 12, layers=0),
    "pauli-two-axes": file_of("4x3x2", [{"axes": [2, 0], "kind": "pauli"}]),
    "per": file_of(
        "3x4x2",
        [
            {"axes": [1], "kind": "pauli", "per": [0]},
            {"axes": [1], "kind": "orthogonal", "per": [2], "map": "cayley"},
            {"axes": [0], "kind": "orthogonal", "per": [2], "map": "householder"},
            {"axes": [0], "kind": "orthogonal", "per": "rest", "map": "givens"},
            {"axes": [2], "kind": "ry", "per": "rest"},
        ],
    ),
    "shared": file_of(
        "4x4x2",
        [
            {"axes": [0], "kind": "pauli", "name": "p"},
            {"axes": [1], "kind": "orthogonal", "name": "o"},
            {"axes": [2], "kind": "ry", "name": "r"},
            {"axes": [0, 2], "kind": "cz"},
            {"axes": [1], "share": "p", "transpose": True},
            {"axes": [0], "share": "o", "transpose": True},
            {"axes": [2], "share": "r", "transpose": True},
        ],
    ),
    "unit-axes": file_of(
        "2x1x3x1",
        [
            {"axes": [2, 1], "kind": "cz"},
            {"axes": [3, 1], "kind": "cz"},
            {"axes": [0], "per": [1], "kind": "ry"},
            {"axes": [2], "per": [3, 0], "kind": "orthogonal"},
            {"axes": [1, 2], "per": [3], "kind": "pauli"},
            {"axes": [3], "per": [2], "kind": "pauli"},
        ],
    ),
    "called-angles": file_of("2x2", [{"axes": [0], "kind": "ry", "name": "angles"}, {"axes": [1], "kind": "ry"}]),
    "cz": file_of("3x4", [{"axes": [0], "kind": "orthogonal"}, {"axes": [1, 0], "kind": "cz"}]),
}
"""Circuits with an orthogonal operator."""

TALL: dict[str, dict[str, Any]] = {
    "exp-tall": _one("orthogonal", 3, 7),
    "cayley-tall-few": _one("orthogonal", 3, 7, map="cayley", rank_parameters=2),
    "householder-tall-few": _one("orthogonal", 3, 7, map="householder", rank_parameters=2),
    "planes-tall": _one("orthogonal", 3, 7, map="givens"),
    "pauli-tall": _one("pauli", 3, 16, layers=2),
    "pauli-tall-12": _one("pauli", 5, 12),
}
WIDE: dict[str, dict[str, Any]] = {
    "exp-wide": _one("orthogonal", 7, 3),
    "cayley-wide": _one("orthogonal", 7, 3, map="cayley"),
    "householder-wide": _one("orthogonal", 7, 3, map="householder"),
    "planes-wide-few": _one("orthogonal", 7, 3, map="givens", rank_parameters=2),
    "pauli-wide": _one("pauli", 8, 3),
    "pauli-wide-11-few": _one("pauli", 11, 4, rank_parameters=1),
    "per-wide": file_of("2x6", [{"axes": [1], "to": [3], "kind": "pauli", "per": [0]}]),
}
CUT: dict[str, dict[str, Any]] = {
    "taylor": _one("orthogonal", 6, map="taylor"),
    "taylor-few": _one("orthogonal", 9, map="taylor", rank_parameters=2, order=4),
    "taylor-tall": _one("orthogonal", 3, 7, map="taylor", order=2),
    "neumann": _one("orthogonal", 6, map="neumann", order=3),
    "neumann-wide": _one("orthogonal", 7, 3, map="neumann"),
    "neumann-few-per": file_of(
        "2x9", [{"axes": [1], "kind": "orthogonal", "map": "neumann", "rank_parameters": 1, "per": [0]}]
    ),
}
"""Circuits of series that are cut: about orthonormal, and exactly at zero."""
MIXED: dict[str, dict[str, Any]] = {
    "projector": file_of(
        8,
        [
            {"axes": [0], "kind": "pauli", "to": [3], "name": "p"},
            {"axes": [0], "to": [8], "share": "p", "transpose": True},
        ],
    ),
    "low-rank": file_of(
        12,
        [
            {"axes": [0], "kind": "pauli", "to": [4]},
            {"axes": [0], "kind": "diagonal"},
            {"axes": [0], "kind": "orthogonal", "to": [10]},
        ],
        plan={"tokens": 8, "optimizer": "dp"},
    ),
    "padded": file_of(2, [{"axes": [0], "kind": "ry"}], out_features=3),
    "beside-dense": file_of(
        "2x2x3",
        [
            [0, 2],
            {"axes": [0, 1], "kind": "cz"},
            {"axes": [0], "kind": "ry"},
            {"axes": [2], "kind": "pauli"},
            [1],
            {"axes": [1, 2], "kind": "lowrank", "rank": 1},
        ],
        in_features=11,
        out_features=14,
    ),
}
"""Circuits whose operator is not orthonormal."""

CIRCUITS = {**SQUARE, **TALL, **WIDE, **CUT, **MIXED}


@lru_cache(maxsize=64)
def rotation_circuit(name: str) -> CompiledCircuit:
    """Return one of the circuits, compiled."""
    return compile_circuit(CIRCUITS[name])


def expanded_matrix(module: torch.nn.Module) -> torch.Tensor:
    """Return the second oracle's matrix for a module's gates, patterns as the module's own text has them."""
    return plain_matrix(json.loads(str(module.circuit)), module)


def file_operator(file: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the reference's matrix of a file; `tensors` as in the state dict, without `gates.`."""
    return circuit_operator(build_circuit(load_spec(dict(file))), tensors)


def stored_gates(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what a module stores, named as in the reference: float64 copies that take gradients."""
    return {
        name.removeprefix("gates."): tensor.detach().double().requires_grad_()
        for name, tensor in module.named_parameters()
    }
