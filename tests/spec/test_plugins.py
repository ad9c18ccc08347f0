"""Kinds of gates that other packages bring: what is read, and what is said where a package is missing or broken."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from installed_kinds import Install
from random_circuits import file_of

from quanta_compiler import reference_operator
from quanta_compiler.diagnostics import SpecError
from quanta_compiler.driver import compile_circuit
from quanta_compiler.kinds.plugins import PluginError, all_plugins
from quanta_compiler.spec import load_spec, to_dict, to_yaml
from quanta_compiler.spec.schema import json_schema, schema_text

GATE = {"axes": [0, 1], "kind": "householder", "reflections": 3}
BROKEN = """
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Part
from quanta_compiler.kinds.made import Made, Step

class Broken(Kind):
    name = "broken"
    meaning = "A gate that is broken."
    form = Form.FUNCTION
    schemes = ("zeros", "normal")

    def stored(self, rows, columns):
        return (Part("", (rows,), rows, columns),)

    def fixed_gain(self, rows, columns):
        return 1.0

    def made(self, rows, columns):
        text = "def broken(numbers):\\n    return torch.diag_embed(numbers)"
        return Made("broken", (), (Step("elementwise", (rows, columns), 1),), text)

    def reference(self, numbers, rows, columns):
        return None
"""
"""A kind that is whole but for its reference; `broken` puts something else in the place of a part."""
STEPS = "(Step('matmul', (4, 4), 1),)"


def broken(method: str, body: str) -> str:
    """Return the module with another method."""
    return f"{BROKEN}\n    def {method}:\n        {body}\n"


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
        install(name, f"module_{name}", BROKEN, kinds=("Broken",))
    message = refusal(file_of("4x3", [{"axes": [0], "kind": "broken"}]))
    assert "kind 'broken' is brought by one 0.1 and other 0.1" in message
    assert "hint: uninstall all but one of them" in message


@pytest.mark.parametrize(
    ("method", "body", "fact"),
    [
        ("made(self, *_)", "return None", "says nothing of what its matrix costs: `made` gives no steps"),
        ("made(self, *_)", "return Made('broken', (), (), 'def broken(x): return x')", "`made` gives no steps"),
        (
            "made(self, *_)",
            "raise RuntimeError('no matrix today')",
            "fails for a matrix 4 x 4: RuntimeError: no matrix",
        ),
        ("made(self, *_)", "raise SystemExit(3)", "fails for a matrix 4 x 4: SystemExit: 3"),
        ("made(self, *_)", f"return Made('f', (), {STEPS}, 'def f(x: return')", "fails for a matrix 4 x 4: SyntaxE"),
        ("made(self, *_)", f"return Made('broken', (), {STEPS})", "gives no text of its function"),
        (
            "made(self, *_)",
            f"return Made('broken', (object(),), {STEPS}, 'def broken(x):\\n  return x')",
            "SyntaxError",
        ),
        ("made(self, *_)", f"return Made('f', (), {STEPS}, 'def g(x):\\n  return x')", "is not 'f' and the functions"),
        ("made(self, *_)", f"return Made('f', (), {STEPS}, 'import math\\ndef f(x):\\n  return x')", "is not 'f' and"),
        ("made(self, *_)", f"return Made('f', (), {STEPS}, 'def f(x): return x')", "is not 'f' and the functions"),
        ("stored(self, *_)", "return ()", "`stored` gives 0 tensors, and a function takes one"),
        ("check(self, *_)", "yield None", "`check` yields what is no Complaint"),
        ("check(self, *_)", "raise KeyError('axes')", "fails for a matrix 4 x 4: KeyError: 'axes'"),
        ("note(self)", "return 3", "`note` and what options say of themselves are texts"),
        ("fixed_gain(self, *_)", "return None", "`flops`, `largest_rank` and `fixed_gain` are numbers"),
        ("ways(self, *_)", "return 1 / 0", "fails for a matrix 4 x 4: ZeroDivisionError"),
        ("makes_transpose(self, *_)", "return 1 / 0", "fails for a matrix 4 x 4: ZeroDivisionError"),
    ],
)
def test_a_kind_that_is_broken_is_one_clear_error(method: str, body: str, fact: str, install: Install) -> None:
    install("pack", "module_broken", broken(method, body), kinds=("Broken",))
    message = refusal(file_of("4x3", [{"axes": [0], "kind": "broken"}]))
    assert message.count("hint: ") == 1
    assert "<dict>: gates[0].kind: " in message
    assert "kind 'broken' of pack 0.1" in message
    assert fact in message


OPTION = """
from dataclasses import dataclass
from quanta_compiler.kinds.options import Checked, Integer, Key, option
{}
@dataclass(frozen=True)
class Broken(Broken):
    {}
"""


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("Broken = 3", "is module_broken:Broken, which is no class derived from Kind"),
        (BROKEN.replace('"broken"\n', '"other"\n', 1), "calls itself 'other'"),
        (BROKEN.replace('    name = "broken"\n', ""), "calls itself None"),
        (BROKEN.replace("meaning =", "sense ="), "has no `meaning` in words"),
        (BROKEN + "    look = None\n", "or a `look` that is no Look"),
        (BROKEN.replace("FUNCTION", "MATRIX"), "has the form MATRIX"),
        (BROKEN.replace('("zeros", "normal")', '("identity",)'), "has the schemes ('identity',)"),
        (BROKEN.replace("    schemes", "    drawn_by"), "has the schemes ('kaiming_uniform'"),
        (BROKEN.replace("reference", "plain"), "brings no `reference`"),
        (BROKEN.replace("fixed_gain", "gain"), "or no `fixed_gain`"),
        (OPTION.format(BROKEN, "count: int = 3"), "has fields that are no options with a Key"),
        (OPTION.format(BROKEN, "axes: int = option(Key(Integer(1, 9), 'N'), 1)"), "mean something else: axes"),
        (OPTION.format(BROKEN, "rank: int = option(Key(Integer(1, 9), 'N'), 1)"), "mean something else: rank"),
    ],
)
def test_a_module_that_is_broken_is_one_clear_error(text: str, fact: str, install: Install) -> None:
    install("pack", "module_broken", text, kinds=("Broken",))
    message = refusal(file_of("4x3", [{"axes": [0], "kind": "broken"}]))
    assert "kind 'broken' of pack 0.1" in message
    assert message.count("hint: ") == 1
    assert fact in message
    with pytest.raises(PluginError, match=r"kind 'broken' of pack 0\.1"):
        schema_text()


def test_the_check_of_an_option_and_the_reference_are_blamed_on_the_package(install: Install) -> None:
    text = OPTION.format(BROKEN, "count: int = option(Key(Checked(lambda value: 1 / value, {}), 'N'), 1)")
    install("pack", "module_broken", text, kinds=("Broken",))
    with pytest.raises(PluginError, match="fails for the value of an option: ZeroDivisionError"):
        load_spec(file_of("4", [{"axes": [0], "kind": "broken", "count": 0}]))
    module = compile_circuit(file_of("4", [{"axes": [0], "kind": "broken", "count": 1}])).module()
    with pytest.raises(PluginError, match=r"kind 'broken' of pack 0\.1 gives no reference"):
        reference_operator(module)


@pytest.mark.usefixtures("householder")
def test_another_package_is_refused_and_another_version_told() -> None:
    message = refusal(file_of("4x3", [GATE], packages={"householder": "other==7.0"}))
    assert (
        "packages.householder: the circuit was saved with kind 'householder' of other==7.0, and quanta-house" in message
    )
    spec = load_spec(file_of("4x3", [GATE], packages={"householder": "quanta-householder==7.0"}))
    assert [warning.path for warning in spec.warnings] == ["packages.householder"]
    unknown = refusal(file_of("4x3", [{"axes": [0], "kind": "hous"}], packages={"hous": "pytest==1"}))
    assert f"the package pytest {pytest.__version__} has no kind 'hous'" in unknown


def test_a_package_cannot_take_a_name_of_ours(install: Install) -> None:
    install("pack", "module_dense", "", kinds=("Dense",))
    assert load_spec(file_of("4x3", [[0, 1]])).gates[0].kind == "dense"
    with pytest.raises(PluginError, match=r"kind 'dense' of pack 0.1 has the name of a kind of quanta-compiler"):
        all_plugins()
