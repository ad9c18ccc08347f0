"""`quanta new --preset`: what it prints is valid as it stands, and wrong options are told by their name."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner, Result

from quanta_compiler import compile_circuit, load_spec
from quanta_compiler.cli.app import app
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec.short_notation import preset_document

CASES: list[tuple[list[str], str]] = [
    *(([name], name) for name in PRESETS),
    (["lora:4"], "lora:4"),
    (["lora", "--rank", "4"], "lora:4"),
    (["tt", "--rank", "2", "--layout", "16x16x16"], "tt:rank=2,layout=16x16x16"),
    (["quanta", "--layout", "{auto: 3}"], "quanta:auto=3"),
    (["loretta", "--tt-rank", "9", "--rank", "2"], "loretta:rank=2,tt_rank=9"),
    (["monarch", "--blocks", "2", "--block-rank", "8"], "monarch:blocks=2,block_rank=8"),
    (["krona", "--layout", "[64, 64]"], "krona:64x64"),
    (["quantum_peft", "--rank", "2", "--layers", "0"], "quantum_peft:rank=2,layers=0"),
    (["quantum_peft_full:2"], "quantum_peft_full:2"),
]


def new(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["new", *arguments])


@pytest.mark.parametrize(("arguments", "short"), CASES, ids=str)
def test_the_file_is_valid_and_the_preset_as_asked_for(arguments: list[str], short: str) -> None:
    result = new("mine", "--preset", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    spec = load_spec(result.stdout)
    assert spec.warnings == ()
    expected = {**preset_document(short), "name": "mine"}
    assert spec == load_spec(expected, in_features=4096, out_features=4096)
    assert max(map(len, result.stdout.splitlines())) <= 120
    for line in re.findall(r"(?m)^# (?:init: .*|plan: .*|in_features: .*|out_features: .*)$", result.stdout):
        load_spec(result.stdout.replace(line, line.removeprefix("# ")))


def test_widths_and_names() -> None:
    spec = load_spec(new("--preset", "btt", "--in-features", "100", "--out-features", "64").stdout)
    assert (spec.name, spec.in_features, spec.out_features) == ("btt", 100, 64)
    assert load_spec(new("--preset", "lora:4").stdout).name == "lora-4"
    assert load_spec(new("--preset", "lora:4", "--rank", "3").stdout).name == "lora"
    # As `compare` and `search` call the widths.
    text = new("--preset", "quantum_peft", "--rank", "4", "--in", "768", "--out", "512").stdout
    spec = load_spec(text)
    assert (spec.name, spec.in_features, spec.out_features) == ("quantum-peft", 768, 512)
    assert "is an example" not in text
    assert "4096 is an example" in new("--preset", "quantum_peft").stdout


def test_the_help_says_which_presets_take_an_option_and_what_it_is_to_each() -> None:
    shown = " ".join(new("--help").stdout.split())
    assert f"A family by name: {', '.join(PRESETS)}; " in shown
    for option in dict.fromkeys(option for family in PRESETS.values() for option in family.options()):
        if option == "layout":
            continue
        said = re.search(rf"--{option.replace('_', '-')} COUNT +(Of .*?)(?= --)", shown)
        assert said is not None, option
        meanings = {
            name: text
            for names, text in re.findall(r"Of ([^:]*): ([^.]*\.)", said[1])
            for name in re.split(", | and ", names)
        }
        keys = {name: family.options().get(option) for name, family in PRESETS.items()}
        assert meanings == {name: f"t{key.meaning[1:]}" for name, key in keys.items() if key is not None}


def test_a_width_is_padded_as_the_warning_says() -> None:
    text = new("--preset", "quantum_peft", "--in", "768").stdout
    hint = load_spec(text).warnings[0].hint
    told = re.fullmatch(r"a size of (\d+) takes (\d+) angles: for that, write \1 for (\d+) in the .*", hint or "")
    assert told is not None
    written = CliRunner().invoke(app, ["expand", "-"], input=text).stdout
    padded = re.sub(rf"(layout: |to: \[){told[3]}", rf"\g<1>{told[1]}", written)
    assert compile_circuit(padded).report.parameters.trainable == 2 * int(told[2]) + 8


def test_expand_prints_the_circuit_that_the_preset_stands_for() -> None:
    text = new("--preset", "tt", "--layout", "4x4x4").stdout
    result = CliRunner().invoke(app, ["expand", "-"], input=text)
    assert result.exit_code == 0
    assert "preset" not in result.stdout
    assert "name: core2" in result.stdout
    assert load_spec(result.stdout) == load_spec(text)


WRONG: list[tuple[list[str], str]] = [
    (["--preset", "lra"], "'--preset': unknown preset 'lra': did you mean 'lora'?"),
    (["--preset", "lora:x"], "'--preset': 'lora:x': `rank` must be an integer"),
    (["--preset", "lora", "--layout", "4x4"], "'--layout': preset `lora` takes --rank"),
    (["--preset", "krona", "--rank", "4"], "'--rank': preset `krona` takes --layout"),
    (["--preset", "butterfly", "--blocks", "4"], "'--blocks': preset `butterfly` takes no options"),
    (["--preset", "lora", "--rank", "0"], "'--rank': `rank` must be at least 1"),
    (["--preset", "loretta", "--tt-rank", "0"], "'--tt-rank': `tt_rank` must be at least 1"),
    (["--preset", "krona", "--layout", "4x"], "'--layout': '4x' is not a layout"),
    (["--preset", "krona", "--layout", "4x4\ngates: [each]"], "'--layout': write sizes"),
    (["--preset", "krona", "--layout", "{a: 4}"], "'--layout': the axes of a preset's layout cannot be named"),
    (["--preset", "quanta", "--layout", "16"], "'--layout': pattern `all_pairs` yields no gate"),
    (["--preset", "lora", "--in-features", "0"], "'--in-features' / '--in': 0 is too few: at least 1"),
    (["--preset", "lora", "--layers", "2"], "'--layers': preset `lora` takes --rank"),
    (["1a", "--preset", "lora"], "'NAME': '1a' cannot be the name"),
    (["--rank", "4"], "'--rank': it is an option of presets: name one with --preset"),
    (["--rank", "4", "--layout", "4x4"], "'--rank': it is an option of presets"),
    ([], "'--layout': give the axes or the width (--in), or name a family of circuits with --preset"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=str)
def test_wrong_options_are_one_usage_error(arguments: list[str], message: str) -> None:
    result = new(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert f"Invalid value for {message}" in shown
