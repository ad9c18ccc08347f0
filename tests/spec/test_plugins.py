"""Kinds of gates that other packages bring: what is read, and what is said where a package is missing or broken."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from installed_kinds import Install
from random_circuits import file_of

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.kinds.plugins import PluginError, all_plugins
from quanta_compiler.spec import load_spec, to_dict, to_yaml
from quanta_compiler.spec.schema import json_schema, schema_text

GATE = {"axes": [0, 1], "kind": "householder", "reflections": 3}
BROKEN = """
from quanta_compiler.kinds.kind import Form, Kind, Part
from quanta_compiler.kinds.made import Made, Step

class Broken(Kind):
    name = "broken"
    meaning = "A gate that is broken."
    form = Form.FUNCTION
    schemes = ("zeros", "normal")

    def stored(self, rows, columns):
        return (Part("", (rows,), rows, columns),)

    def made(self, rows, columns):
        {made}

    def reference(self, numbers, rows, columns):
        return None
"""


def refusal(file: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    return str(caught.value)


@pytest.mark.usefixtures("householder")
def test_a_file_can_have_a_kind_of_a_package() -> None:
    spec = load_spec(file_of("4x3x2", [GATE, {"axes": [2], "kind": "householder", "name": "h"}, [0]]))
    assert [(gate.kind, gate.numbers) for gate in spec.gates] == [
        ("householder", 36),
        ("householder", 4),
        ("dense", 16),
    ]
    assert spec.gates[0].matrix.in_words() == "householder of 3 reflections"
    assert to_dict(spec)["packages"] == {"householder": "quanta-householder==0.1"}
    assert 'packages: {householder: "quanta-householder==0.1"}' in to_yaml(spec)
    assert load_spec(to_yaml(spec)) == spec
    pattern = load_spec(file_of("4x3", [{"pattern": "each", "kind": "householder", "reflections": 1}]))
    assert [gate.numbers for gate in pattern.gates] == [4, 3]


@pytest.mark.usefixtures("householder")
def test_mistakes_in_its_options_are_told_as_those_of_any_kind() -> None:
    wrong = {**GATE, "reflections": 0, "layers": 2, "init": "orthogonal"}
    message = refusal(file_of("4x3", [wrong]))
    assert "`reflections` must be at least 1, got 0" in message
    assert "hint: each takes as many numbers as the matrix has rows" in message
    assert "'layers' does not go with a gate of kind `householder`" in message
    assert "such gates cannot be drawn as `orthogonal`" in message
    assert "`reflections` goes with `kind: householder`" in refusal(
        file_of("4x3", [GATE, {"axes": [0], "reflections": 1}])
    )
    (warning,) = load_spec(file_of("2x2", [{**GATE, "reflections": 9}, [0], [1]])).warnings
    assert warning.message == "`reflections` 9 of gate 'g0' is more than a 4 x 4 matrix needs"


@pytest.mark.usefixtures("householder")
def test_the_schema_has_the_kinds_of_installed_packages() -> None:
    schema = json.loads(schema_text())
    assert schema == json_schema(all_plugins()) != json_schema()
    jsonschema.validate(file_of("4x3", [GATE]), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file_of("4x3", [{**GATE, "reflections": 0}]), schema)


def test_a_missing_package_is_named_with_what_to_install() -> None:
    packages = {"householder": "quanta-householder==0.1"}
    # Once for all gates.
    assert refusal(file_of("4x3", [GATE, [0], GATE], packages=packages)).splitlines() == [
        "<dict>: gates[0].kind: kind 'householder' is one of the package 'quanta-householder', which is missing",
        "  hint: pip install quanta-householder, where you trust it; the circuit was saved with version 0.1",
    ]
    odd = refusal(file_of("4x3", [GATE], packages={"householder": "x; rm -rf /"}))
    assert "packages.householder: expected a package with its version, got the text 'x; rm -rf /'" in odd
    assert "unknown kind 'householder' of a gate" in odd
    assert "unknown kind 'householder' of a gate" in refusal(file_of("4x3", [GATE]))
    assert "`packages` is a mapping from kinds to packages, got a list" in refusal(file_of("4", [[0]], packages=[1]))


def test_two_packages_of_one_kind_are_refused(install: Install) -> None:
    for name in ("one", "other"):
        install(name, f"module_{name}", BROKEN.format(made="return None"), kinds=("Broken",))
    message = refusal(file_of("4x3", [{"axes": [0], "kind": "broken"}]))
    assert "kind 'broken' is brought by one 0.1 and other 0.1" in message
    assert "hint: uninstall all but one of them" in message


@pytest.mark.parametrize(
    ("made", "fact"),
    [
        ("return None", "says nothing of what its matrix costs: `made` gives no steps"),
        ("return Made('broken', (), (), 'def broken(x): return x')", "`made` gives no steps"),
        ("raise RuntimeError('no matrix today')", "fails for a matrix 4 x 4: RuntimeError: no matrix today"),
        (
            "return Made('broken', (), (Step('matmul', (4, 4), 1),), 'def f(x: return')",
            "fails for a matrix 4 x 4: Syntax",
        ),
        ("return Made('broken', (), (Step('matmul', (4, 4), 1),))", "gives no text of its function"),
        ("return Made('f', (), (Step('matmul', (4, 4), 1),), 'def g(x): return x')", "defines g"),
    ],
)
def test_a_kind_that_is_broken_is_one_clear_error(made: str, fact: str, install: Install) -> None:
    install("pack", "module_broken", BROKEN.format(made=made), kinds=("Broken",))
    message = refusal(file_of("4x3", [{"axes": [0], "kind": "broken"}]))
    assert message.count("hint: ") == 1
    assert "<dict>: gates[0].kind: " in message
    assert "kind 'broken' of pack 0.1" in message
    assert fact in message


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError"),
        ("Broken = 3", "is module_broken:Broken, which is no class derived from Kind"),
        (BROKEN.format(made="return None").replace('"broken"', '"other"'), "calls itself 'other'"),
        (BROKEN.format(made="return None").replace("FUNCTION", "MATRIX"), "has the form MATRIX"),
        (BROKEN.format(made="return None").replace("reference", "plain"), "brings no `reference`"),
    ],
)
def test_a_module_that_is_broken_is_one_clear_error(text: str, fact: str, install: Install) -> None:
    install("pack", "module_broken", text, kinds=("Broken",))
    message = refusal(file_of("4x3", [{"axes": [0], "kind": "broken"}]))
    assert "kind 'broken' of pack 0.1" in message
    assert fact in message


def test_a_package_cannot_take_a_name_of_ours(install: Install) -> None:
    install("pack", "module_dense", "", kinds=("Dense",))
    assert load_spec(file_of("4x3", [[0, 1]])).gates[0].kind == "dense"
    with pytest.raises(PluginError, match=r"kind 'dense' of pack 0.1 has the name of a kind of quanta-compiler"):
        all_plugins()
