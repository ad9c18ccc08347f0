"""load(expand(file)) == load(file), through YAML and through JSON; and files broken at random."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from plain_patterns import written_out
from random_circuits import random_file
from spec_circuits import FILES

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.spec import load_spec, to_dict, to_yaml
from quanta_compiler.spec.circuit_spec import CircuitSpec

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


class Refused(Exception):  # noqa: N818
    """A file was refused in good order: a SpecError from anywhere else is a failure."""


def load_or_refuse(source: Any) -> CircuitSpec:
    try:
        return load_spec(source)
    except SpecError as error:
        messages = [diagnostic.render() for diagnostic in error.diagnostics]
    assert messages
    assert "bad value" not in str(messages)
    raise Refused


def check_round_trips(spec: CircuitSpec) -> None:
    text = to_yaml(spec)
    again = load_spec(text)
    assert again == spec
    assert to_yaml(again) == text
    assert load_spec(to_dict(spec)) == spec
    assert load_spec(json.loads(json.dumps(to_dict(spec)))) == spec
    # Other readers take the text for the same data: nothing in it depends on the YAML version.
    other = yaml.safe_load(text)
    other["layout"] = text.split("layout: ")[1].split("\n")[0] if spec.positional else other["layout"]
    assert load_spec(other) == spec


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    check_round_trips(load_spec(FILES[name]))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples(file: Path) -> None:
    check_round_trips(load_spec(file))


@pytest.mark.parametrize("seed", range(100))
def test_random_circuits_and_their_patterns_written_out(seed: int) -> None:
    spec = load_spec(random_file(seed))
    check_round_trips(spec)
    assert load_spec(written_out(random_file(seed))) == spec


def test_expanded_text() -> None:
    text = to_yaml(load_spec(FILES["share"] + "plan: {optimizer: dp}\n"))
    assert text == (
        "version: 1\nname: example\nlayout: 4x4\nin_features: 16\nout_features: 8\ngates:\n"
        "  - {name: u, axes: [0], to: [2], kind: dense, init: {scheme: normal, std: 1.0e-05}}\n"
        "  - {name: g1, axes: [0], to: [4], share: u, transpose: true}\n"
        "  - {name: g2, axes: [1], to: [2], share: u}\n"
        "output: [0, 1]\nplan: {tokens: 2048, optimizer: dp}\n"
    )


PIECES = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "- ",
    "\n",
    "  ",
    "\t",
    "'",
    '"',
    "&a ",
    "*a",
    "!!str ",
    "null",
    "true",
    ".nan",
    "-1",
]
PIECES += [
    "0",
    "9" * 30,
    "1e400",
    "axes",
    "to",
    "per",
    "kind",
    "share",
    "rank",
    "rest",
    "auto",
    "g0",
    "u",
    "c",
    "#",
    "|",
    ">",
    "?",
    "%",
]
PIECES += [
    "\u2028",
    "é",
    "\ufeff",
    "<<: ",
    "---\n",
    "0x10",
    "dense",
    "lowrank",
    "ry",
    "cz",
    "two_design",
    "all_pairs",
    "pattern: ",
    "value: [[1]]",
]


@pytest.mark.parametrize("seed", range(12))
def test_broken_files_give_errors_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    texts = list(FILES.values())
    for _ in range(60):
        text = rng.choice(texts)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(text))
            stop = start + rng.choice([0, 0, 1, 2, 5, 20])
            text = text[:start] + rng.choice([*PIECES, "", ""]) + text[stop:]
        with contextlib.suppress(Refused):
            check_round_trips(load_or_refuse(text + "\n"))


@pytest.mark.parametrize("seed", range(12))
def test_broken_data_gives_errors_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        3,
        10**30,
        10**5000,
        1.5,
        float("nan"),
        "",
        "a",
        "0",
        "rest",
        [],
        {},
        [[]],
        [{}],
        {"a": 1},
        {0: 0},
    ]
    for _ in range(60):
        data = random_file(rng.randrange(10**6))
        for _ in range(rng.randint(1, 3)):
            place: Any = data
            while isinstance(place, dict | list) and place:
                key = rng.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
                inner = place[key]
                if rng.random() < 0.4 or not isinstance(inner, dict | list) or not inner:
                    place[key] = rng.choice(values)
                    break
                place = inner
        with contextlib.suppress(Refused):
            check_round_trips(load_or_refuse(data))


class Disguised(str):
    """A text that writes itself as code."""

    def __format__(self, spec: str) -> str:
        return "import os"

    __str__ = __repr__ = lambda self: "import os"


class DisguisedNumber(int):
    """A number that writes itself as code."""

    def __format__(self, spec: str) -> str:
        return "import os"

    __str__ = __repr__ = lambda self: "import os"


def test_subclasses_in_a_dict_are_taken_for_what_they_are() -> None:
    file = {
        "version": 1,
        "name": Disguised("small"),
        "layout": [DisguisedNumber(2), 3],
        "gates": [{"axes": [DisguisedNumber(0)], "name": Disguised("gate")}],
    }
    spec = load_spec(file)
    assert [type(spec.name), type(spec.layout[0].size), type(spec.gates[0].name)] == [str, int, str]
    assert "import os" not in to_yaml(spec)
    assert spec == load_spec({**file, "name": "small", "layout": [2, 3], "gates": [{"axes": [0], "name": "gate"}]})


def test_a_list_that_contains_itself_is_refused() -> None:
    layout: list[object] = []
    layout.append(layout)
    with pytest.raises(SpecError):
        load_spec({"version": 1, "name": "loop", "layout": layout, "gates": [[0]]})


@pytest.mark.parametrize("sizes", [{"in_features": 0}, {"in_features": 8, "out_features": -1}])
def test_the_sizes_for_a_template_are_positive(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        load_spec("version: 1\nname: t\nlayout: {auto: 2}\ngates: [each]\n", **sizes)
