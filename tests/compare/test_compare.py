"""Comparisons: figures against reports and formulas, sums over a model, order, formats."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_oracle import plain_operator
from random_circuits import random_file
from torch.utils.flop_counter import FlopCounterMode

import quanta_compiler as qc
from quanta_compiler.compare import COLUMNS, Comparison, Row, compare
from quanta_compiler.compare.entrants import CompareError
from quanta_compiler.compare.figures import NO_KERNEL, summed
from quanta_compiler.compare.row import MISFIT
from quanta_compiler.compare.tables import comparison_tables
from quanta_compiler.predict.calibration import typical_calibration

QUANTA = "version: 1\nname: pairs\nlayout: 4x4x4\ngates: [all_pairs]\n"
WIDE = "version: 1\nname: wide\nlayout: 8x8\ngates:\n  - {axes: [0, 1], to: [8, 4]}\n"
TEMPLATE = "version: 1\nname: fitted\nlayout: {auto: 2}\ngates: [all_pairs]\n"


@pytest.fixture
def quanta_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.yaml"
    path.write_text(QUANTA)
    return path


def row_of(comparison: Comparison, name: str) -> Row:
    found = [row for row in comparison.rows if row.name == name]
    assert len(found) == 1, [row.name for row in comparison.rows]
    return found[0]


def test_a_circuits_figures_are_those_of_its_report(quanta_file: Path) -> None:
    row = compare([quanta_file], tokens=128, backend="torch").rows[0]
    report = qc.compile_circuit(quanta_file, tokens=128).report
    assert row.trainable == report.parameters.trainable == 3 * 16 * 16
    assert row.percent == report.parameters.percent_of_dense
    assert row.forward_flops_per_token == report.apply.flops_per_token
    assert row.saved_bytes_per_token == report.apply.saved_bytes_per_token
    assert row.optimizer_bytes == 2 * 4 * 768
    assert (row.operator_flops, row.operator_peak_bytes) == (report.operator.flops, report.operator.peak_bytes)
    assert (row.rank_lower, row.rank_upper) == (report.rank.lower, report.rank.upper)
    assert row.breakeven_tokens == report.breakeven_tokens
    assert (row.connected, row.gates_to_connect) == (True, 2)


def test_a_training_step_is_what_torch_counts(quanta_file: Path) -> None:
    row = compare([quanta_file], tokens=128, backend="torch").rows[0]
    module = qc.compile_circuit(quanta_file, tokens=128).module(backend="torch")
    x = torch.randn(128, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        module(x).sum().backward()
    assert row.step_flops_per_token * 128 == counter.get_total_flops()


def test_the_kernel_keeps_the_input_and_computes_the_states_again(quanta_file: Path) -> None:
    row = compare([quanta_file], tokens=128, backend="fused").rows[0]
    once = 3 * 2 * 64 * 16
    assert row.backend == "fused"
    assert row.saved_bytes_per_token == 4 * 64
    assert (row.forward_flops_per_token, row.step_flops_per_token) == (once, 4 * once)


def test_a_calibration_without_the_kernel_has_the_times_of_torch(
    quanta_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare([quanta_file], tokens=128).rows[0].backend == "fused"
    without = replace(typical_calibration(), kernel=None)
    monkeypatch.setattr("quanta_compiler.compare.run.load_calibration", lambda *_: without)
    auto, torch_row, fused = (
        compare([quanta_file], tokens=128, backend=backend).rows[0] for backend in ("auto", "torch", "fused")
    )
    assert auto == torch_row
    assert auto.step_seconds is not None
    assert (fused.step_seconds, fused.note) == (None, NO_KERNEL)


def test_lora_is_as_its_paper_has_it(quanta_file: Path) -> None:
    row = row_of(compare([quanta_file], baselines=["lora:2"], tokens=512, backend="torch"), "lora:2")
    assert row.trainable == 2 * (64 + 64)
    assert row.forward_flops_per_token == 2 * 2 * (64 + 64)
    assert row.step_flops_per_token == 3 * row.forward_flops_per_token
    assert (row.rank_lower, row.rank_upper) == (2, 2)
    assert row.percent == pytest.approx(100 * 256 / 4096)


def test_the_numerical_rank_is_that_of_a_random_instance(tmp_path: Path) -> None:
    # A gate of rank 3 on an axis of 4 leaves a quarter of the 16 dimensions out; padding leaves 16 of 20.
    narrow: dict[str, Any] = {"version": 1, "name": "narrow", "layout": "4x4", "gates": [[0, 1]]}
    narrow["gates"].append({"axes": [1], "kind": "lowrank", "rank": 3})
    padded = {"version": 1, "name": "padded", "layout": "4x4", "in_features": 20, "out_features": 20, "gates": [[0, 1]]}
    ranks = {}
    for document in (narrow, padded):
        path = tmp_path / f"{document['name']}.yaml"
        path.write_text(json.dumps(document) + "\n")
        ranks[document["name"]] = compare([path], rank=True).rows[0].numerical_rank
        assert ranks[document["name"]] == np.linalg.matrix_rank(random_operator(document))
    assert ranks == {"narrow": 12, "padded": 16}


def random_operator(document: dict[str, Any]) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    state = qc.compile_circuit(document).module().state_dict()
    return plain_operator(document, {key: rng.normal(size=tuple(value.shape)) for key, value in state.items()})


@pytest.mark.parametrize("seed", range(6))
def test_upper_bounds_hold_and_are_met_by_random_instances(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "random.yaml"
    path.write_text(json.dumps(random_file(seed)) + "\n")
    row = compare([path], rank=True, seed=seed).rows[0]
    assert row.numerical_rank is not None
    assert row.rank_upper is not None
    assert row.numerical_rank <= row.rank_upper


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_break_even_is_by_the_flops_beside_it(quanta_file: Path, backend: str) -> None:
    """For one layer and for a model of one layer alike."""
    row = compare([quanta_file], tokens=7, backend=backend).rows[0]
    assert row.operator_flops is not None
    assert row.breakeven_tokens == -(-row.operator_flops // round(row.forward_flops_per_token))
    whole = summed([row], [1], whole=64 * 64, tokens=7)
    assert replace(whole, in_features=64, out_features=64) == row


def test_templates_and_baselines_take_the_widths_of_the_files(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.yaml" for name in ("wide", "fitted")}
    files["wide"].write_text(WIDE)
    files["fitted"].write_text(TEMPLATE)
    comparison = compare(list(files.values()), baselines=["lora:4", "dense"], tokens=64)
    assert {row.name for row in comparison.rows} == {"wide", "fitted", "lora:4", "dense"}
    assert {(row.in_features, row.out_features) for row in comparison.rows} == {(64, 32)}
    assert row_of(comparison, "dense").percent == 100
    assert comparison.percent_of == "a dense 32 x 64 layer"


def test_two_shapes_have_rows_of_their_own(tmp_path: Path, quanta_file: Path) -> None:
    wide = tmp_path / "wide.yaml"
    wide.write_text(WIDE)
    comparison = compare([quanta_file, wide], baselines=["lora:4"])
    assert len(comparison.rows) == 4
    loras = [row for row in comparison.rows if row.name == "lora:4"]
    assert {(row.out_features, row.trainable) for row in loras} == {(64, 512), (32, 384)}


def test_figures_are_summed_over_layers(quanta_file: Path) -> None:
    first = compare([quanta_file], tokens=64).rows[0]
    second = compare(baselines=["lora:2"], in_features=64, out_features=32, tokens=64).rows[0]
    whole = summed([first, second], [3, 2], whole=10_000, tokens=64)
    assert whole.layers == 5
    for key in ("trainable", "forward_flops_per_token", "step_flops_per_token", "saved_bytes_per_token"):
        assert getattr(whole, key) == 3 * getattr(first, key) + 2 * getattr(second, key)
    assert whole.percent == pytest.approx(whole.trainable / 100)
    assert whole.optimizer_bytes == 8 * whole.trainable
    assert (whole.rank_lower, whole.rank_upper) == (2, 64)
    assert whole.in_features is None


@pytest.mark.parametrize(("key", "values"), [("trainable", "rising"), ("rank_upper", "falling"), ("name", "rising")])
def test_the_best_comes_first(quanta_file: Path, key: str, values: str) -> None:
    comparison = compare([quanta_file], baselines=["lora:2", "lora:9", "dense", "series:4"], sort=key)
    known = [getattr(row, key) for row in comparison.rows if getattr(row, key) is not None]
    assert known == sorted(known, reverse=values == "falling")
    # What has no such figure comes last, in either direction.
    for one in (comparison, comparison.sorted_by(key, reverse=True)):
        missing = [getattr(row, key) is None for row in one.rows]
        assert missing == sorted(missing)


def test_a_circuit_for_other_widths_is_marked_and_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "pairs.yaml"
    path.write_text("version: 1\nname: pairs\nlayout: 4x4\nin_features: 160\ngates: [all_pairs]\n")
    for key in ("step_seconds", "trainable", "name"):
        comparison = compare([path], baselines=["lora:2", "krona", "dense"], sort=key)
        assert {row.name for row in comparison.rows if row.is_misfit} == {"pairs"}
        assert comparison.sorted_by(key, reverse=True).rows[-1].name == "pairs"
        table, notes = comparison_tables(comparison, 200)
        assert table.rows[-1][0] == "pairs *"
        assert ("pairs *", f"a circuit of 16 features: {MISFIT}") in notes.rows
    # One that narrows is as wide as the larger of its two widths, and that is as it should be.
    narrowing = compare([], baselines=["quanta", "lora:2"], in_features=64, out_features=16)
    assert not any(row.is_misfit for row in narrowing.rows)


def test_json_and_csv_have_every_figure(quanta_file: Path) -> None:
    comparison = compare([quanta_file], baselines=["lora:2", "dora:2"])
    data = json.loads(comparison.to_json())
    keys = [column.key for column in COLUMNS]
    assert [column["key"] for column in data["columns"]] == keys
    assert all(sorted(row) == sorted(keys) for row in data["rows"])
    lines = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [line["name"] for line in lines] == [row["name"] for row in data["rows"]]
    assert all(
        float(line["step_seconds"]) == row["step_seconds"] for line, row in zip(lines, data["rows"], strict=True)
    )


def test_a_file_may_be_called_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.yaml", "a, b.yaml", "a=b,c=d"):
        Path(name).write_text(QUANTA)
        assert [row.source for row in compare([name]).rows] == [name]


def test_a_problem_leaves_one_out_and_no_other(tmp_path: Path, quanta_file: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(QUANTA.replace("all_pairs", "all_pair"))
    comparison = compare([broken, quanta_file, tmp_path / "missing.yaml"], baselines=["prefix:10"])
    assert [row.name for row in comparison.rows] == ["pairs"]
    assert comparison.failed
    assert len(comparison.problems) == 3
    assert comparison.problems[0].span is not None


def test_one_width_may_be_asked_for(quanta_file: Path) -> None:
    rows = compare([quanta_file], baselines="lora:2", out_features=32).rows
    assert {(row.in_features, row.out_features) for row in rows} == {(64, 32)}


def test_rows_of_one_name_are_told_apart(quanta_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(QUANTA)
    comparison = compare([quanta_file, other, other], baselines=["lora:2", "lora:2"])
    assert len(comparison.rows) == 3
    (table, *_) = comparison_tables(comparison, width=1000)
    assert sorted(cells[0] for cells in table.rows) == ["lora:2", f"pairs ({other})", f"pairs ({quanta_file})"]


def test_a_circuit_with_magnitudes_has_a_row_of_its_own(quanta_file: Path) -> None:
    names = ["lora:8", "dora:lora:8", "dora:8", f"dora:{quanta_file}"]
    rows = {row.name: row for row in compare([quanta_file], baselines=names).rows}
    plain, dora, method, own = (rows[name] for name in names)
    assert (dora.kind, dora.family, method.kind) == ("circuit", "lora", "method")
    assert dora.out_features is not None
    assert dora.trainable == method.trainable == plain.trainable + dora.out_features
    assert dora.percent == pytest.approx(method.percent)
    assert (dora.rank_lower, dora.rank_upper) == (method.rank_lower, method.rank_upper)
    assert dora.step_flops_per_token > plain.step_flops_per_token
    assert dora.saved_bytes_per_token == pytest.approx(method.saved_bytes_per_token, rel=0.2)
    (file,) = (row for row in rows.values() if row.source == str(quanta_file))
    assert own.trainable == file.trainable + dora.out_features
    with pytest.raises(CompareError, match="`dora` takes the rank r of B A"):
        compare([quanta_file], baselines=["dora:nothing"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baselines": ["lorra:8"]}, "unknown baseline 'lorra:8': did you mean 'lora'?"),
        ({"baselines": ["lora:8"]}, "no file gives the widths"),
        ({"baselines": ["lora:8"], "in_features": 8, "sort": "speed"}, "there is no figure 'speed'"),
        ({"baselines": ["lora:8"], "in_features": 8, "backend": "cuda"}, "there is no backend 'cuda'"),
        ({"baselines": ["lora:8"], "in_features": 8, "targets": "q_proj"}, "targets are layers of a model"),
        ({"baselines": ["lora:8"], "in_features": 8, "model": "folder"}, "a model has widths of its own"),
        ({"baselines": ["lora:8"], "in_features": 10**9}, "a layer has at most"),
        ({"files": ["q_proj=a.yaml"], "in_features": 8}, "gives the targets of a model circuits of their own"),
        ({"files": ["q=a.yaml,q=b.yaml"], "model": "folder"}, "names a target twice"),
        ({"files": ["(=a.yaml"], "model": "folder"}, "is no regular expression"),
        ({"files": ["q=-,v=-"]}, "gives the targets of a model"),
        ({"baselines": ["lora:8"], "in_features": 8, "sort": "step_second"}, "did you mean 'step_seconds'?"),
        ({"baselines": ["lora:8"], "in_features": 8, "threads": 77}, "not calibrated for 77 threads"),
        ({"baselines": ["lora:8"], "in_features": 8, "device": "cuda"}, "not calibrated for cuda"),
        ({"files": ["q=-,v=-"], "model": "folder"}, "standard input can be read only once"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CompareError, match=message.replace("?", r"\?")):
        compare(**arguments)
