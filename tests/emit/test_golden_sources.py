"""Emitted sources as a reader sees them; after a change of the emitter: pytest --update-golden, and read the diff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from random_circuits import file_of

from quanta_compiler.driver import compile_circuit

SOURCES: dict[str, dict[str, Any]] = {
    "all-pairs": file_of("16x8x8x4", ["all_pairs"], name="all-pairs"),
    "lora": file_of(
        {"x": 64},
        [{"axes": ["x"], "to": {"r": 8}, "name": "A"}, {"axes": ["r"], "to": {"y": 48}, "name": "B"}],
        name="lora",
    ),
    "kinds": file_of(
        {"a": 4, "b": 3, "c": 2},
        [
            {"axes": ["a", "b"], "kind": "lowrank", "rank": 2, "name": "low"},
            {"axes": ["b", "c"], "name": "mixed", "init": "orthogonal"},
            {"axes": ["c"], "kind": "diagonal", "per": ["a"], "frozen": True, "name": "phase"},
            {
                "axes": ["a"],
                "kind": "constant",
                "value": [[1, 0.5, 0, 0], [0, 1, 0, 0]],
                "to": {"a": 2},
                "name": "fixed",
            },
            {"axes": ["c", "b"], "share": "mixed", "transpose": True, "name": "again"},
            {"axes": ["c", "b"], "kind": "slice", "to": {"d": 5}, "name": "cut"},
        ],
        name="kinds",
        in_features=20,
        out_features=16,
        plan={"tokens": 64},
    ),
    "one-gate": file_of("3x4", [[0, 1]], name="one-gate"),
    "monarch": file_of(
        {"a": 8, "b": 8},
        [{"axes": ["b"], "per": ["a"], "name": "L"}, {"axes": ["a"], "per": ["b"], "name": "R"}],
        name="monarch",
    ),
    "ry-cz": file_of("2x2", [{"axes": [0], "kind": "ry"}, {"axes": [0, 1], "kind": "cz"}], name="ry-cz"),
    "pauli": file_of("4x3", [{"axes": [0], "kind": "pauli"}, {"axes": [1], "kind": "pauli"}], name="pauli"),
    "pauli-few": file_of(
        "4x5",
        [
            {"axes": [0], "kind": "pauli", "layers": 2, "rank_parameters": 1},
            {"axes": [1], "to": [3], "kind": "pauli", "rank_parameters": 1},
        ],
        name="pauli-few",
    ),
    "orthogonal": file_of(
        "4x3",
        [{"axes": [0], "kind": "orthogonal"}, {"axes": [1], "kind": "orthogonal", "map": "cayley"}],
        name="orthogonal",
    ),
    "orthogonal-few": file_of(
        "6x4",
        [
            {"axes": [0], "to": [3], "kind": "orthogonal", "rank_parameters": 1},
            {"axes": [1], "to": [6], "kind": "orthogonal", "map": "cayley", "rank_parameters": 2},
        ],
        name="orthogonal-few",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"sources/{name}.py", compile_circuit(SOURCES[name]).source)


def test_report(golden: Callable[[str, str], None]) -> None:
    golden("reports/kinds.report.json", compile_circuit(SOURCES["kinds"]).report.to_json())
