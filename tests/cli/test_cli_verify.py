"""`quanta verify` and the module behind it: agreement, planted mistakes, limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import quanta_compiler.driver
from quanta_compiler import CompiledCircuit, compile_circuit
from quanta_compiler.cli.app import app
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.oracle import verification

SMALL: dict[str, Any] = {"version": 1, "name": "small", "layout": "4x4x2", "gates": ["all_pairs"]}
MIXED: dict[str, Any] = {
    "version": 1,
    "name": "mixed",
    "layout": {"a": 4, "b": 4, "c": 3},
    "in_features": 50,
    "out_features": 20,
    "gates": [
        {"axes": ["a", "b"], "kind": "lowrank", "rank": 3},
        {"axes": ["c"], "kind": "diagonal"},
        {"axes": ["a"], "per": ["b"], "name": "blocks"},
        {"axes": ["a"], "share": "blocks", "transpose": True, "per": ["b"]},
        {"axes": ["b", "c"], "to": {"d": 6}},
    ],
}


def verify_command(circuit: dict[str, Any], folder: Path, *arguments: str) -> Result:
    path = folder / "circuit.yaml"
    path.write_text(json.dumps(circuit), encoding="utf-8")
    return CliRunner().invoke(app, ["verify", str(path), *arguments])


@pytest.mark.parametrize("circuit", [SMALL, MIXED])
def test_a_compiled_module_agrees(circuit: dict[str, Any], tmp_path: Path) -> None:
    result = verify_command(circuit, tmp_path)
    assert result.exit_code == 0
    assert f"{circuit['name']}: the module agrees with the float64 reference" in result.stdout


def test_the_errors_as_json(tmp_path: Path) -> None:
    data = json.loads(verify_command(MIXED, tmp_path, "--json", "--seed", "7", "--tokens", "4").stdout)
    assert (data["passed"], data["seed"], data["tolerance"]) == (True, 7, 1e-5)
    assert 0 < data["errors"]["forward"] < 1e-6
    assert 0 < data["errors"]["operator"] < 1e-6


@pytest.mark.parametrize(
    ("planted", "mode"),
    [
        ("        return x.view(*lead, 32)", "forward"),
        ("        return w", "operator"),
    ],
)
def test_a_wrong_module_is_caught(planted: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_right = compile_circuit

    def compile_wrong(*arguments: Any) -> CompiledCircuit:
        compiled = compile_right(*arguments)
        lines = compiled.source.splitlines(keepends=True)
        end = max(place for place, line in enumerate(lines) if line.startswith(planted))
        lines[end] = lines[end].rstrip() + " * 1.0001\n"
        return replace(compiled, source="".join(lines))

    monkeypatch.setattr(quanta_compiler.driver, "compile_circuit", compile_wrong)
    result = verify_command(SMALL, tmp_path, "--json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["passed"]) == (1, False)
    wrong = [name for name, error in data["errors"].items() if error > 1e-5]
    assert wrong == [mode]
    assert "DIFFERS FROM" in verify_command(SMALL, tmp_path).stdout


def test_a_circuit_that_is_too_large_stops_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a module was made")

    monkeypatch.setattr(CompiledCircuit, "module", never)
    circuit = {**SMALL, "layout": "1024x1024x16", "gates": [[0], [1], [2]]}
    result = verify_command(circuit, tmp_path)
    assert (result.exit_code, result.stdout) == (3, "")
    needed = 4 * (1 << 24) ** 2
    assert int(result.stderr.split("needs ")[1].split(" bytes")[0].replace(",", "")) > needed
    assert "half of the free memory" in result.stderr


def test_max_bytes(tmp_path: Path) -> None:
    result = verify_command(SMALL, tmp_path, "--max-bytes", "1000", "--json")
    assert result.exit_code == 3
    message = json.loads(result.stdout)[0]["message"]
    needed = int(message.split("needs ")[1].split(" bytes")[0].replace(",", ""))
    assert "but may take 1,000 (--max-bytes)" in message
    assert verify_command(SMALL, tmp_path, "--max-bytes", str(needed)).exit_code == 0
    assert verify_command(SMALL, tmp_path, "--max-bytes", str(needed - 1)).exit_code == 3


def test_a_diagonal_is_written_out_by_the_reference_and_counted() -> None:
    compiled = compile_circuit({**SMALL, "layout": 1 << 16, "gates": [{"axes": [0], "kind": "diagonal"}]})
    assert verification.required_bytes(compiled.circuit, 0) > 2 * 8 * (1 << 32)


def test_numbers_that_overflow_are_no_agreement(tmp_path: Path) -> None:
    huge = {"axes": [2], "kind": "constant", "value": [[1e30, 0], [0, 1e30]]}
    result = verify_command({**SMALL, "gates": [huge, huge, [0, 1]]}, tmp_path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["errors"]["forward"] is None


@pytest.mark.parametrize("circuit", [SMALL, MIXED])
def test_gates_keep_the_scale_and_are_no_rotations(circuit: dict[str, Any]) -> None:
    compiled = compile_circuit(circuit)
    generator = torch.Generator().manual_seed(0)
    for stored in all_stored(compiled.circuit):
        drawn = verification._well_scaled(stored, generator)
        assert drawn.shape == stored.shape
        if stored.gate.kind == "diagonal":
            assert 0.8 < float(drawn.abs().min()) <= float(drawn.abs().max()) < 1.2
            continue
        # Columns times the mean square of an entry: what a vector's mean square is multiplied by.
        mean_square = float(drawn.square().mean()) * stored.part.fan_in
        assert mean_square == pytest.approx(1.0, abs=0.2)


def test_deep_circuits_do_not_fade_away() -> None:
    deep = compile_circuit({**SMALL, "layout": [2] * 4, "gates": [{"pattern": "all_pairs", "repeat": 35}]})
    result = verification.verify(deep)
    assert result.passed
    assert result.forward_error > 0
