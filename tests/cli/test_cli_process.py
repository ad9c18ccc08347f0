"""The command as a process of its own: imports, pipes, encodings. Few, for each takes a while to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quanta_compiler.cli.command import INTERRUPTED, PIPE_CLOSED

FIVE_AXES = "version: 1\nname: five\nlayout: 8x8x4x4x4\ngates: [all_pairs]\n"
QUANTA = [sys.executable, "-m", "quanta_compiler"]


@pytest.fixture
def circuit(tmp_path: Path) -> Path:
    path = tmp_path / "five.yaml"
    path.write_text(FIVE_AXES, encoding="utf-8")
    return path


def test_the_five_commands_import_neither_torch_nor_networkx(circuit: Path) -> None:
    code = f"""
import sys
from quanta_compiler.cli.app import app
for command in (["check"], ["expand"], ["draw"], ["report"], ["compile", "-o", {str(circuit.parent)!r}]):
    try:
        app([*command, {str(circuit)!r}])
    except SystemExit as error:
        assert not error.code, (command, error.code)
    found = {{"torch", "networkx"}} & set(sys.modules)
    assert not found, (command, found)
    if command[0] in ("check", "expand", "draw"):
        assert "rich" not in sys.modules and "opt_einsum" not in sys.modules, command
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_no_error(circuit: Path) -> None:
    # Far more than a pipe holds.
    many = circuit.with_name("many.yaml")
    gates = "{pattern: all_pairs, repeat: 300}"
    many.write_text(FIVE_AXES.replace("all_pairs", gates), encoding="utf-8")
    # Without its buffer Python drops what a write has left over, and never learns that nobody reads.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [*QUANTA, "expand", str(many)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"version: 1\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == PIPE_CLOSED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told(circuit: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*QUANTA, "expand", str(circuit)], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"quanta: cannot write to standard output: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_ascii_streams_and_file_names_that_are_no_text(circuit: Path) -> None:
    odd = os.fsencode(circuit.parent) + b"/odd-\xff-\xc3\xa9.yaml"
    os.replace(os.fsencode(circuit), odd)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command: list[str | bytes] = [*QUANTA, "check", odd]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b": ok (five: " in done.stdout
    assert done.stdout.isascii()


def test_an_interruption_is_quiet(circuit: Path) -> None:
    code = f"""
import quanta_compiler.cli.circuit_files as files
def interrupt(file):
    raise KeyboardInterrupt
files.read_circuit = interrupt
import sys
sys.argv = ["quanta", "expand", {str(circuit)!r}]
from quanta_compiler.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, b"", b"")
