"""The help: its layout, its words for values, and its examples, every one of which is run as it is shown."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, Mlp, adapted, circuit_layers
from commands import quanta
from lora_folders import diagonal_lora, save_lora
from paper_checkpoints import paper_layer
from safetensors.torch import save_file
from typer.main import get_command

from quanta_compiler.bench import timing
from quanta_compiler.cli.app import COMMANDS, app
from quanta_compiler.watch import server

EXAMPLES = Path(__file__).parents[2] / "examples"
QUANTA: Any = get_command(app)
ONLY_PARSED = ("quanta bench --calibrate", "quanta recommend --model meta-llama/Llama-3.2-1B --budget 0.05%")
"""A minute of measuring, and a model of the Hub."""

SMALL = "version: 1\nname: small\nlayout: 4x4x4\ngates: [all_pairs]\nplan: {tokens: 8}\n"


def shown(command: str) -> list[str]:
    """Return the examples in the help of a command."""
    help_, _, examples = quanta(command, "--help").stdout.partition("\nExamples:\n")
    assert "Example" not in help_
    return [line.strip() for line in examples.splitlines()]


def pages() -> Iterator[Any]:
    for name in COMMANDS:
        with QUANTA.make_context("quanta", [name]) as context:
            command = QUANTA.get_command(context, name)
            yield command.make_context(name, [], parent=context, resilient_parsing=True)


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in a folder with the files that examples name, and compute in one thread."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "llama2-7b-16-8-8-4.yaml", "circuit.yaml")
    shutil.copytree(EXAMPLES / "models" / "llama3-8b", "examples/models/llama3-8b")
    save_lora(Path("other-adapter"), {"q_proj": diagonal_lora([2.0, 1.0], [0, 1], (24, 24))}, 2)
    model = adapted(Mlp(), circuit=LORA)
    for layer in circuit_layers(model).values():
        # Of rank 1, where 3 is there.
        layer.quanta_circuit_gates["default"].get_parameter("g0-B").data[:, 0] = 1
    model.save_pretrained("adapter")
    save_file(paper_layer("q_proj", (4, 4, 4), torch.Generator().manual_seed(0)), "checkpoint.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_works_as_it_is_shown(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "serve", lambda files, listener: None)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    if command == "import":
        shutil.rmtree("adapter")
    if command == "bench":
        monkeypatch.setattr(timing, "repetitions", lambda job, clock, sample_seconds: 1)
    if command == "kernel":
        pytest.importorskip("triton", reason="Triton has no wheel for this system")
    if command in ("bench", "kernel"):
        Path("circuit.yaml").write_text(SMALL)
    examples = shown(command)
    assert 1 <= len(examples) <= 3
    for example in examples:
        words = shlex.split(example)
        assert command in words, example
        if example in ONLY_PARSED:
            with QUANTA.make_context("quanta", words[1:]) as context:
                QUANTA.get_command(context, command).make_context(command, words[2:], parent=context)
            continue
        assert run(example) == 0, example


def run(example: str) -> int:
    """Run what a shell would, with `|` and `>`; return the exit code of the last command."""
    line, _, target = example.partition(" > ")
    text, code = "", 0
    for part in line.split(" | "):
        name, *arguments = shlex.split(part)
        assert name == "quanta"
        result = quanta(*arguments, stdin=text)
        text, code = result.stdout, result.exit_code
    if target:
        Path(target).write_text(text, encoding="utf-8")
    return code


def test_commands_are_listed_in_the_order_of_work_with_a_short_line_each() -> None:
    lines = quanta("--help").stdout.splitlines()
    places = [next(i for i, line in enumerate(lines) if line.startswith(f"  {name} ")) for name in COMMANDS]
    assert places == sorted(places)
    assert COMMANDS.index("new") < COMMANDS.index("compile") < COMMANDS.index("compare") < COMMANDS.index("bench")
    assert all(lines[place].endswith(".") and len(lines[place]) <= 78 for place in places)


def test_values_have_words_and_arguments_have_brackets_where_they_may_be_left_out() -> None:
    for context in pages():
        text = context.command.get_help(context)
        assert not {"<", "{", "}"} & {*text}, text
        assert "[[" not in text
        for parameter in context.command.get_params(context):
            if parameter.param_type_name == "argument" or not parameter.is_flag:
                assert parameter.help.endswith("."), parameter.name
                assert len(parameter.metavar) >= 3, parameter.name
    assert quanta("check", "-h").stdout.startswith("Usage: quanta check [OPTIONS] FILE...\n")
    assert quanta("compare", "-h").stdout.startswith("Usage: quanta compare [OPTIONS] [FILE...]\n")
    assert quanta("new", "-h").stdout.startswith("Usage: quanta new [OPTIONS] [NAME]\n")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_line_is_too_long_or_broken_within_a_word(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for name in ("", *COMMANDS):
        lines = quanta(*name.split(), "--help").stdout.splitlines()
        assert max(map(len, lines)) <= min(int(columns), 100)
        assert not [line for line in lines if re.search(r"\w-$|\[default:$|\xa0", line)]
