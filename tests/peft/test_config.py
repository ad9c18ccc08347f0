"""The configuration: read once, saved whole, and back as it was."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from adapted_models import LORA, QUANTA, Mlp, adapted
from mixed_circuit import MIXED
from peft import BOFTConfig, LoraConfig, OFTConfig, PeftConfig, PeftModel, PeftType, VeraConfig
from random_circuits import file_of, random_file

from quanta_compiler.models.fitting import FeaturesError
from quanta_compiler.nn import fit_circuit
from quanta_compiler.peft import AdapterError, QuantaConfig
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import load_spec

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def saved_and_loaded(config: QuantaConfig, folder: Path) -> QuantaConfig:
    config.save_pretrained(str(folder))
    loaded = PeftConfig.from_pretrained(str(folder))
    assert isinstance(loaded, QuantaConfig)
    return loaded


def test_the_method_has_a_name_of_its_own_in_pefts_enumeration() -> None:
    kind: Any = QuantaConfig().peft_type
    assert kind is PeftType("QUANTA_CIRCUIT") is PeftType["QUANTA_CIRCUIT"]
    assert kind in list(PeftType)
    assert kind == kind.value == "QUANTA_CIRCUIT"
    assert pickle.loads(pickle.dumps(kind)) is copy.deepcopy(kind) is kind
    assert json.dumps(kind) == '"QUANTA_CIRCUIT"'
    assert repr(kind) == "<PeftType.QUANTA_CIRCUIT: 'QUANTA_CIRCUIT'>"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_circuit_is_saved_whole_and_never_its_path(path: Path, tmp_path: Path) -> None:
    config = QuantaConfig(circuit=path, target_modules=["q_proj"])
    loaded = saved_and_loaded(config, tmp_path)
    assert loaded == QuantaConfig(circuit=str(path), target_modules=["q_proj"])
    assert str(path) not in (tmp_path / "adapter_config.json").read_text()
    assert load_spec(loaded.circuit) == load_spec(path)


@pytest.mark.parametrize("seed", range(40))
def test_random_circuits_come_back_as_they_were(seed: int, tmp_path: Path) -> None:
    """PEFT sorts the keys of what it saves; the order of named axes is part of a circuit."""
    file = random_file(seed)
    config = QuantaConfig(circuit={"q": file, "k": QUANTA})
    loaded = saved_and_loaded(config, tmp_path)
    assert load_spec(loaded.circuit["q"]) == load_spec(file)
    assert loaded.circuit_hash == config.circuit_hash
    assert loaded.target_modules == {"q", "k"}


def test_a_layout_of_one_number_comes_back_where_the_order_of_keys_counts(tmp_path: Path) -> None:
    """It is stored as JSON text, and read as YAML a layout is text: the hash was that of another circuit."""
    file = file_of(12, [{"axes": [0], "to": {"b": 3, "a": 4}}])
    config = QuantaConfig(circuit=file)
    assert saved_and_loaded(config, tmp_path).circuit_hash == config.circuit_hash


def test_the_arguments_of_lora_are_refused_with_ours() -> None:
    lora: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "bias": "none", "residuals": "none"}
    with pytest.raises(TypeError, match="unexpected keyword argument: 'r', 'lora_alpha', 'lora_dropout'") as caught:
        QuantaConfig(**lora)
    for words in ("preset='lora:8'", "`scale` is", "is `dropout`", "leave `bias` out", "did you mean `residual`?"):
        assert words in str(caught.value)
    assert "residual" in inspect.signature(QuantaConfig).parameters


@pytest.mark.parametrize(("theirs", "ours"), [(OFTConfig, "oft:4"), (BOFTConfig, "boft:4"), (VeraConfig, "vera:4")])
def test_what_pefts_other_families_call_otherwise_is_refused_with_ours(theirs: Any, ours: str) -> None:
    family = ours.partition(":")[0]
    own, lora, known = ({field.name for field in dataclasses.fields(one)} for one in (theirs, LoraConfig, QuantaConfig))
    told = {}
    for name in sorted(own - lora - known):
        given: dict[str, Any] = {name: 1}
        with pytest.raises(TypeError, match=f"unexpected keyword argument: '{name}'\nhint: ") as caught:
            QuantaConfig(**given)
        told[name] = str(caught.value).partition("\nhint: ")[2]
    # What no circuit has: a bound on the angles, one block for all places, and terms of the series.
    left = {"coft", "eps", "block_share", "num_cayley_neumann_terms"}
    assert {name for name, hint in told.items() if hint == f"leave `{name}` out"} == left & told.keys()
    presets = [hint for hint in told.values() if f"preset='{family}:" in hint]
    assert presets
    for hint in presets:
        assert ("placement='input'" in hint) == (PRESETS[family].placement == "input")
    QuantaConfig(preset=ours, placement=PRESETS[family].placement)


def test_named_axes_keep_their_order(tmp_path: Path) -> None:
    loaded = saved_and_loaded(QuantaConfig(circuit=MIXED), tmp_path)
    assert isinstance(loaded.circuit, str)
    assert load_spec(loaded.circuit) == load_spec(MIXED)
    spec = load_spec(MIXED)
    assert fit_circuit(loaded.circuit, spec.in_features, spec.out_features).spec == spec


def test_without_a_circuit_it_is_the_quanta_preset() -> None:
    config = QuantaConfig()
    assert config.circuit == {"version": 1, "name": "quanta", "preset": "quanta", "layout": {"auto": 4}}
    assert config.circuit_hash == QuantaConfig(circuit=config.circuit).circuit_hash


def test_targets_are_those_of_the_mapping() -> None:
    assert QuantaConfig(circuit={"q_proj": LORA, "a.b": LORA}).target_modules == {"q_proj", "a.b"}
    assert QuantaConfig(circuit={r"q_proj|k": LORA}).target_modules == r"(?:.*\.)?(?:(?:q_proj|k))"
    assert QuantaConfig(circuit={"q": LORA}, target_modules=["v"]).target_modules == {"v"}
    assert QuantaConfig(circuit=LORA).target_modules is None


def test_a_yaml_text_is_a_circuit_too() -> None:
    config = QuantaConfig(circuit="version: 1\nname: text\nlayout: 4x4\ngates: [all_pairs]\n")
    assert config.circuit["name"] == "text"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "residual": (
        {"residual": "frozen"},
        "`residual` is one of auto, frozen_copy, folded, identity, none, got 'frozen'",
    ),
    "dropout": ({"dropout": 1}, "`dropout` is a number from 0 up to but not including 1, got 1"),
    "dropout-folded": ({"dropout": 0.1, "residual": "folded"}, "`dropout` cannot be used with `residual='folded'`"),
    "scale": ({"scale": float("nan")}, "`scale` is a finite number, got nan"),
    "seed": ({"init_seed": 1.5}, "`init_seed` is an integer, got 1.5"),
    "preset": ({"preset": "quantum"}, "unknown preset 'quantum': did you mean 'quanta'?"),
    "preset-option": ({"preset": "lora:x"}, "'lora:x': `rank` must be an integer, got the text 'x'"),
    "preset-type": ({"preset": 8}, "`preset` is the name of a preset, such as 'lora:8', got 8"),
    "preset-no-version": ({"circuit": {"preset": "lora"}}, "`circuit` has no `version`"),
    "empty": ({"circuit": {}}, "`circuit` is an empty mapping"),
    "no-version": ({"circuit": {"layout": "4x4", "gates": [[0]]}}, "`circuit` has no `version`"),
    "no-version-in-mapping": ({"circuit": {"q": {"layout": 4}}}, "the circuit for target 'q' has no `version`"),
    "target": ({"circuit": {3: LORA}}, "the keys of the mapping `circuit` are names of targets, got 3"),
    "regex": ({"circuit": {"q(": LORA}}, r"the target 'q\(' is no regular expression"),
    "layers": ({"target_modules": "q.*", "layers_to_transform": [1]}, "`layers_to_transform` cannot be used when"),
    "pattern": ({"target_modules": "q.*", "layers_pattern": "h"}, "`layers_pattern` cannot be used when"),
    "type": ({"circuit": 3}, "a circuit is a path, a YAML text or a dict, not int"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused(name: str) -> None:
    keys, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        QuantaConfig(**keys)


def test_a_missing_or_wrong_circuit_file_is_told_with_its_place(tmp_path: Path) -> None:
    from quanta_compiler.diagnostics import SpecError

    with pytest.raises(SpecError, match=r"nowhere\.yaml"):
        QuantaConfig(circuit=os.path.join(tmp_path, "nowhere.yaml"))
    path = tmp_path / "wrong.yaml"
    path.write_text("version: 1\nname: wrong\nlayout: 4x4\ngates:\n  - [0, 2]\n")
    with pytest.raises(SpecError, match=r"wrong\.yaml:5:"):
        QuantaConfig(circuit={"q": path})


def test_a_template_keeps_to_the_sizes_that_it_writes() -> None:
    template = file_of({"auto": 3}, ["all_pairs"], out_features=17)
    assert fit_circuit(template, 24, 17).out_features == 17
    with pytest.raises(FeaturesError, match="written for 24 -> 17 features, the layer has 24 -> 16"):
        fit_circuit(template, 24, 16)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["(?i)Q_PROJ"], "is no regular expression"),
        ([r"(?P<n>q)_proj", r"(?P<n>k)_proj"], r"use \(\?:\.\.\.\) for groups"),
        ([r"(q)\1_proj", "k_proj"], r"use \(\?:\.\.\.\) for groups"),
    ],
)
def test_patterns_are_checked_in_the_form_in_which_they_are_used(targets: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantaConfig(circuit=dict.fromkeys(targets, QUANTA))


def test_a_configuration_that_names_a_file_opens_none(tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("do not show: this\n")
    config = tmp_path / "adapter_config.json"
    config.write_text(f'{{"peft_type": "QUANTA_CIRCUIT", "circuit": "{secret}", "circuit_hash": null}}')
    with pytest.raises(AdapterError, match="`circuit` names a file, a saved adapter holds the circuit itself"):
        QuantaConfig.from_pretrained(str(tmp_path))
    config.write_text("{")
    with pytest.raises(AdapterError, match=r"adapter_config\.json: it is no JSON"):
        QuantaConfig.from_pretrained(str(tmp_path))


def test_a_saved_copy_that_the_configuration_does_not_know_is_told_as_such(tmp_path: Path) -> None:
    model = adapted(Mlp(), target_modules=["q_proj"], residual="frozen_copy")
    model.save_pretrained(str(tmp_path))
    config = tmp_path / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"residual": "frozen_copy",\n  "resolved"', '"residual": "none",\n  "resolved"')
    )
    with pytest.raises(AdapterError, match=r"q_proj: frozen\.g0 is saved, and the configuration has no place for it"):
        PeftModel.from_pretrained(Mlp(), str(tmp_path))
