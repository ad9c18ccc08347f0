"""`across` in files: read, written out and refused as other keys of gates are; a module by itself is the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from random_circuits import file_of

from quanta_compiler import compile_circuit, load_spec
from quanta_compiler.diagnostics import SpecError
from quanta_compiler.report.text_diagram import render_text
from quanta_compiler.spec import to_dict, to_yaml

KINDS: list[dict[str, Any]] = [
    {"axes": [0, 1]},
    {"axes": [0], "kind": "lowrank", "rank": 2, "per": [1]},
    {"axes": [1], "kind": "diagonal", "frozen": True},
    {"axes": [0], "kind": "orthogonal", "map": "cayley"},
    {"axes": [2], "kind": "ry"},
    {"axes": [0, 1], "kind": "pauli", "layers": 1},
    {"axes": [0], "kind": "givens"},
]


@pytest.mark.parametrize("scope", ["layers", "targets", "all"])
def test_every_kind_with_a_parameter_takes_it_and_expand_prints_it(scope: str) -> None:
    spec = load_spec(file_of("4x3x2", [{**gate, "across": scope} for gate in KINDS]))
    assert {gate.across for gate in spec.gates} == {scope}
    assert to_yaml(spec).count(f"across: {scope}") == len(KINDS)
    assert load_spec(to_yaml(spec)) == spec == load_spec(json.loads(json.dumps(to_dict(spec))))


def test_patterns_pass_it_on() -> None:
    gates = [{"pattern": "all_pairs", "across": "layers"}, {"pattern": "two_design", "across": "all"}]
    spec = load_spec(file_of("2x2x2", gates))
    # CZ stores nothing that could be shared.
    assert [(gate.kind, gate.across) for gate in spec.gates[:7]] == [
        *[("dense", "layers")] * 3,
        *[("ry", "all")] * 3,
        ("cz", None),
    ]
    assert load_spec(to_yaml(spec)) == spec


def test_a_gate_that_shares_has_the_owner_s_parameter_whoever_has_it() -> None:
    gates = [{"axes": [0], "name": "a", "across": "all"}, [1], {"axes": [0], "share": "a", "transpose": True}]
    spec = load_spec(file_of("4x3", gates))
    assert [gate.across for gate in spec.gates] == ["all", None, None]
    diagram = render_text(compile_circuit(spec).circuit)
    assert diagram.count("across all") == 2


@pytest.mark.parametrize("kind", ["cz", "slice", "constant"])
def test_a_gate_that_stores_nothing_has_nothing_to_share(kind: str) -> None:
    gates: dict[str, dict[str, Any]] = {
        "cz": {"axes": [0, 1]},
        "constant": {"axes": [0], "value": [[1, 0], [0, 1]]},
        "slice": {"axes": [0]},
    }
    with pytest.raises(SpecError, match=f"a {kind} gate has no parameter"):
        load_spec(file_of("2x2", [{**gates[kind], "kind": kind, "across": "all"}]))


def test_a_module_by_itself_is_the_same() -> None:
    plain = file_of("4x3x2", KINDS)
    shared = {**plain, "gates": [{**gate, "across": "all"} for gate in KINDS]}
    modules: list[Any] = [compile_circuit(file).module(seed=3, backend="torch") for file in (plain, shared)]
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(module(x) for module in modules))
    sources = [compile_circuit(file).source.splitlines() for file in (plain, shared)]
    # Beside the text of the circuit only what is made of it: its hash, and that of the whole file.
    bodies = [
        [line for line in source if not line.startswith("        '") and "circuit " not in line] for source in sources
    ]
    assert bodies[0][1:] == bodies[1][1:]
    assert json.loads(modules[1].circuit)["gates"][0]["across"] == "all"


def test_gates_that_other_layers_have_too_are_no_single_matrix() -> None:
    def warned(*scopes: str | None) -> bool:
        gates = [{"axes": [0], **({"across": scope} if scope else {})} for scope in scopes]
        return any("with nothing between" in warning.message for warning in load_spec(file_of(8, gates)).warnings)

    assert warned(None, None)
    assert warned("all", "all")
    assert not warned("all", None)
    assert not warned("layers", "targets")
