"""No text of a circuit file reaches the source but as a checked identifier or an escaped literal."""

from __future__ import annotations

import ast
import keyword
from typing import Any

import pytest
import torch
from random_circuits import file_of

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.driver import compile_circuit
from quanta_compiler.emit.source import circuit_json
from quanta_compiler.runtime.loading import load_class
from quanta_compiler.spec.names import CIRCUIT_NAME, TORCH_NAMES

HOSTILE = [
    '"]; import os; os.system("true") #',
    "x\nimport os",
    "x\r\nimport os",
    "x\u2028import os",
    "a'b",
    'a"b',
    "a\\",
    '"""',
    "{x}",
    "x; y",
    "x y",
    "x.y",
    "",
    " ",
    "1x",
    "x\0",
    "\N{CYRILLIC SMALL LETTER A}",
    "\N{FULLWIDTH LATIN SMALL LETTER X}",
    "e\N{COMBINING ACUTE ACCENT}",
    "x\N{RIGHT-TO-LEFT OVERRIDE}",
    "\N{SUPERSCRIPT TWO}",
    "x" * 10_000,
    "__class__",
    "__import__",
    *keyword.kwlist,
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_that_are_no_identifiers_are_refused(name: str) -> None:
    places: list[dict[str, Any]] = [
        file_of(4, [[0]], name=name),
        file_of(4, [{"axes": [0], "name": name}]),
        file_of(4, [{"axes": [name]}]),
        file_of(4, [[0]], output=[name]),
        file_of(4, [{"axes": [0], "share": name}]),
        file_of(4, [{"axes": [0], name: 1}]),
        {**file_of(4, [[0]]), name: 1},
    ]
    if name not in ("__class__", "__import__"):
        # As axes these are nothing but labels.
        places += [file_of({name: 4}, [[name]]), file_of(4, [{"axes": [0], "to": {name: 4}}])]
    for file in places:
        if file["name"] == name and CIRCUIT_NAME.match(name):
            continue  # a circuit may be called so; where its module may not, the driver refuses
        with pytest.raises(SpecError):
            compile_circuit(file)


@pytest.mark.parametrize("name", sorted(TORCH_NAMES))
def test_names_of_torch_containers_are_refused_before_torch_does(name: str) -> None:
    with pytest.raises(SpecError, match="torch"):
        compile_circuit(file_of(4, [{"axes": [0], "name": name}]))


BOLD = [
    *(
        "self",
        "x",
        "n",
        "lead",
        "torch",
        "gates",
        "w1",
        "one",
        "circuit",
        "Circuit",
        "in_features",
        "constant_x",
        "A",
        "B",
    ),
    *(
        "dense",
        "None_",
        "_",
        "_x",
        "input",
        "output",
        "eye",
        "print",
        "generator",
        "reset_parameters",
        "operator",
    ),
]


@pytest.mark.parametrize("name", BOLD)
def test_names_that_the_source_itself_uses_do_no_harm(name: str) -> None:
    gates: list[Any] = [
        {"axes": ["x"], "name": name},
        {
            "axes": ["n", "x"],
            "kind": "constant",
            "value": [[1.0, 2, 0, 0], [0, 1, 0, 0]],
            "to": {"self": 2},
            "name": "k",
        },
        {"axes": ["self"], "kind": "lowrank", "rank": 1, "name": "low", "to": {"torch": 3}},
    ]
    file = file_of({"x": 2, "n": 2}, gates, name="torch.class.def")
    module = compile_circuit(file).module()
    assert next(iter(module.state_dict())) == f"gates.{name}"
    assert module(torch.ones(3, 4)).shape == (3, 3)
    constant = compile_circuit(file_of(2, [{"axes": [0], "kind": "constant", "value": [[1, 0], [0, 2]], "name": name}]))
    assert constant.module()(torch.ones(1, 2)).tolist() == [[1, 2]]


def test_only_plain_calls_stand_in_a_source() -> None:
    """A walk over the syntax tree: nothing is imported, evaluated or opened that the compiler did not mean."""
    source = compile_circuit(file_of("4x4", ["all_pairs", {"axes": [0], "kind": "lowrank", "rank": 2}])).source
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    assert called.isdisjoint({"eval", "exec", "open", "__import__", "compile", "getattr"})


def test_circuit_text_is_an_escaped_literal() -> None:
    nasty: dict[str, object] = {"name": '"""\n\\\u2028\x00\'{}'}
    text = circuit_json(nasty)
    assert text.isascii()
    assert "\n" not in text
    circuit = compile_circuit(file_of({"a": 2}, [["a"]]))
    assert load_class(circuit.source).circuit == circuit_json(
        {
            **{"version": 1, "name": "test", "layout": {"a": 2}, "in_features": 2, "out_features": 2},
            "gates": [{"name": "g0", "axes": ["a"], "kind": "dense", "init": "kaiming_uniform"}],
            **{"output": ["a"], "plan": {"tokens": 2048, "optimizer": "auto"}},
        }
    )


@pytest.mark.parametrize("value", [1e-320, 1e38, -0.0, 0.1, 12345678901234567890, 5e-324])
def test_numbers_come_out_as_they_went_in(value: float) -> None:
    gates = [{"axes": [0], "kind": "constant", "value": [[value]]}]
    module = compile_circuit(file_of(1, gates)).module(dtype=torch.float64)
    assert module(torch.ones(1, 1, dtype=torch.float64)).item() == float(value)


@pytest.mark.parametrize("std", [1e-30, 0.1, 3, 1e30])
def test_a_deviation_comes_out_as_it_went_in(std: float) -> None:
    source = compile_circuit(file_of(1, [{"axes": [0], "init": {"scheme": "normal", "std": std}}])).source
    numbers = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    assert float(std) in numbers
