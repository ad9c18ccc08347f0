"""The JSON Schema: the committed file, and what an independent validator makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from spec_circuits import FILES

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.schema import json_schema, schema_text

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft7Validator(json_schema())
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def as_an_editor_reads_it(text: str) -> Any:
    """YAML to JSON data, mapping keys as property names."""
    data = yaml.safe_load(text)
    return json.loads(json.dumps(data, default=str))


def test_the_committed_schema_is_that_of_the_models() -> None:
    assert (ROOT / "schemas" / "circuit.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert "x-name" not in schema_text()


@pytest.mark.parametrize("name", FILES)
def test_valid_files_are_accepted(name: str) -> None:
    VALIDATOR.validate(as_an_editor_reads_it(FILES[name]))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_accepted(file: Path) -> None:
    VALIDATOR.validate(as_an_editor_reads_it(file.read_text(encoding="utf-8")))


BASE: dict[str, Any] = {"version": 1, "name": "a", "layout": "4x4", "gates": ["all_pairs"]}
REFUSED: list[dict[str, Any]] = [
    {"version": 2},
    {"version": True},
    {"name": "1a"},
    {"name": "a b"},
    {"name": 5},
    {"layout": "0x4"},
    {"layout": "4x4-4"},
    {"layout": "4 x 4"},
    {"layout": []},
    {"layout": [0]},
    {"layout": [True]},
    {"layout": {"auto": 0}},
    {"layout": {"auto": 2, "b": 2}},
    {"layout": {"rest": 2}},
    {"layout": {"a b": 2}},
    {"layout": {"class": 2}},
    {"layout": {"a": 0}},
    {"in_features": 0},
    {"in_features": True},
    {"out_features": None},
    {"unknown": 1},
    {"gates": []},
    {"gates": "all_pairs"},
    {"gates": ["all_pair"]},
    {"gates": [[]]},
    {"gates": [[0, 0]]},
    {"gates": [[True]]},
    {"gates": [["a b"]]},
    {"gates": [{}]},
    {"gates": [{"axes": [0], "kind": "dens"}]},
    {"gates": [{"axes": [0], "kind": "lowrank"}]},
    {"gates": [{"axes": [0], "kind": "lowrank", "rank": 0}]},
    {"gates": [{"axes": [0], "kind": "lowrank", "rank": True}]},
    {"gates": [{"axes": [0], "rank": 2}]},
    {"gates": [{"axes": [0], "kind": "constant"}]},
    {"gates": [{"axes": [0], "kind": "constant", "value": [[True]]}]},
    {"gates": [{"axes": [0], "kind": "slice", "init": "zeros"}]},
    {"gates": [{"axes": [0], "transpose": True}]},
    {"gates": [{"axes": [0], "name": "1a"}]},
    {"gates": [{"axes": [0], "name": "forward"}]},
    {"gates": [{"axes": [0], "name": "lambda"}]},
    {"gates": [{"axes": [0], "name": "__init__"}]},
    {"gates": [{"axes": [0], "to": [0]}]},
    {"gates": [{"axes": [0], "to": {"a b": 1}}]},
    {"gates": [{"axes": [0], "to": {"a": 0}}]},
    {"gates": [{"axes": [0], "to": None}]},
    {"gates": [{"axes": [0], "per": "all"}]},
    {"gates": [{"axes": [0], "init": "zero"}]},
    {"gates": [{"axes": [0], "init": {"scheme": "zeros", "std": 1}}]},
    {"gates": [{"axes": [0], "init": {"scheme": "normal", "std": 0}}]},
    {"gates": [{"axes": [0], "share": "a", "kind": "dense"}]},
    {"gates": [{"axes": [0], "frozen": 1}]},
    {"gates": [{"axes": [0], "frozn": True}]},
    {"gates": [{"pattern": "ring", "repeat": 0}]},
    {"gates": [{"pattern": "ring", "kind": "constant"}]},
    {"gates": [{"pattern": "ring", "per": [0]}]},
    {"gates": [{"pattern": "ring", "kind": "diagonal", "to": {"0": 2}}]},
    {"gates": [{"pattern": "ring", "name": "a"}]},
    {"gates": [{"axes": [0], "kind": "ry", "to": [2]}]},
    {"gates": [{"axes": [0], "kind": "ry", "init": "orthogonal"}]},
    {"gates": [{"axes": [0, 1], "kind": "cz", "frozen": True}]},
    {"gates": [{"axes": [0, 1], "kind": "cz", "per": "rest"}]},
    {"gates": [{"axes": [0], "kind": "orthogonal", "map": "log"}]},
    {"gates": [{"axes": [0], "kind": "orthogonal", "layers": 1}]},
    {"gates": [{"axes": [0], "kind": "orthogonal", "rank_parameters": 0}]},
    {"gates": [{"axes": [0], "kind": "orthogonal", "init": {"scheme": "identity"}}]},
    {"gates": [{"axes": [0], "kind": "pauli", "layers": -1}]},
    {"gates": [{"axes": [0], "kind": "pauli", "layers": 1025}]},
    {"gates": [{"axes": [0], "kind": "pauli", "layers": True}]},
    {"gates": [{"axes": [0], "kind": "pauli", "rank": 2}]},
    {"gates": [{"axes": [0], "layers": 2}]},
    {"gates": [{"pattern": "ring", "layers": 2}]},
    {"gates": [{"pattern": "ring", "kind": "cz", "init": "zeros"}]},
    {"gates": [{"pattern": "each", "kind": "ry", "to": {"0": 2}}]},
    {"gates": [{"pattern": "two_design", "kind": "ry"}]},
    {"gates": [{"pattern": "two_design", "layers": -1}]},
    {"gates": [{"pattern": "two_design", "per": "rest"}]},
    {"output": [True]},
    {"init": "kaiming"},
    {"plan": {"tokens": 0}},
    {"plan": {"optimizer": "optimal"}},
    {"plan": {"token": 1}},
    {"plan": None},
]


@pytest.mark.parametrize("change", REFUSED, ids=json.dumps)
def test_what_a_schema_can_express_is_refused_by_both(change: dict[str, Any]) -> None:
    data = {**BASE, **change}
    VALIDATOR.validate(BASE)
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(SpecError):
        load_spec(data)


PRESET: dict[str, Any] = {"version": 1, "name": "a", "in_features": 64}
ACCEPTED_PRESETS: list[dict[str, Any]] = [
    {"preset": "quanta", "layout": {"auto": 3}, "init": "orthogonal"},
    {"preset": "lora", "rank": 8, "out_features": 32, "plan": {"tokens": 64}},
    {"preset": "krona", "layout": "8-8"},
    {"preset": "tt", "layout": [8, 8], "rank": 2},
    {"preset": "loretta", "layout": "4x4x4", "rank": 2, "tt_rank": 3},
    {"preset": "monarch", "blocks": 4, "block_rank": 4},
    {"preset": "btt", "layout": 64, "rank": 1},
    {"preset": "butterfly"},
    {"preset": "quantum_peft", "rank": 8, "layers": 0},
    {"preset": "quantum_peft_full", "layers": 2},
    {"preset": "lotr", "rank": 4},
    {"preset": "vera", "rank": 512},
]
REFUSED_PRESETS: list[dict[str, Any]] = [
    {"preset": "lorra"},
    {"preset": None},
    {"preset": "lora", "layout": "8x8"},
    {"preset": "lora", "gates": ["each"]},
    {"preset": "lora", "output": [0]},
    {"preset": "lora", "rank": 0},
    {"preset": "lora", "rank": True},
    {"preset": "lora", "rank": "8"},
    {"preset": "lora", "rank": 1 << 25},
    {"preset": "lora", "init": "zero"},
    {"preset": "lora", "plan": {"token": 1}},
    {"preset": "krona", "rank": 8},
    {"preset": "krona", "layout": {"a": 8, "b": 8}},
    {"preset": "krona", "layout": {"auto": 0}},
    {"preset": "monarch", "rank": 2},
    {"preset": "butterfly", "in_features": 0},
    {"preset": "quantum_peft", "layers": -1},
    {"preset": "quantum_peft", "layers": 1025},
    {"preset": "quantum_peft_full", "rank": 8},
    {"preset": "vera", "across": "all"},
]


@pytest.mark.parametrize("change", ACCEPTED_PRESETS, ids=json.dumps)
def test_presets_are_accepted_by_both(change: dict[str, Any]) -> None:
    data = {**PRESET, **change}
    VALIDATOR.validate(data)
    load_spec(data)


@pytest.mark.parametrize("change", REFUSED_PRESETS, ids=json.dumps)
def test_wrong_presets_are_refused_by_both(change: dict[str, Any]) -> None:
    data = {**PRESET, **change}
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(SpecError):
        load_spec(data)


@pytest.mark.parametrize("key", ["version", "name", "layout", "gates"])
def test_required_keys(key: str) -> None:
    data = {other: value for other, value in BASE.items() if other != key}
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(SpecError) as caught:
        load_spec(data)
    assert len(caught.value.diagnostics) == 1
