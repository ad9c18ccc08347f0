"""Calibrations in files: nothing lost, nothing half-written, nothing believed that is damaged or of another machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_calibration import calibration

from quanta_compiler.predict.calibration import (
    REMEDY,
    Calibration,
    load_calibration,
    store_calibration,
    typical_calibration,
)
from quanta_compiler.system.machine import processor_name


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))


def own(**changes: Any) -> Calibration:
    return replace(calibration(), name=processor_name(), **changes)


def test_a_file_holds_all_of_it() -> None:
    once = Calibration.from_json(calibration().to_json())
    assert Calibration.from_json(once.to_json()) == once
    assert once.to_json() == calibration().to_json()
    assert once.grids.products.values == pytest.approx(calibration().grids.products.values, rel=1e-3)
    without = replace(once, kernel=None)
    assert Calibration.from_json(without.to_json()) == without


def test_what_comes_with_the_package() -> None:
    typical = typical_calibration()
    assert not typical.calibrated
    assert typical.kernel is not None
    assert typical.remark == f"times of a typical machine; {REMEDY}"
    assert load_calibration() == typical


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    kept = Calibration.from_json(own().to_json())
    path = store_calibration(kept)
    assert path.parent.parent == tmp_path / "cache"
    assert load_calibration() == load_calibration(threads=1) == kept
    assert load_calibration().calibrated
    assert load_calibration(threads=2) == typical_calibration()
    assert load_calibration("cuda") == typical_calibration()


def test_the_last_one_is_taken_where_threads_do_not_matter() -> None:
    paths = [store_calibration(own(threads=threads)) for threads in (1, 2)]
    os.utime(paths[0], (1, 1))
    assert load_calibration().threads == 2
    assert load_calibration(threads=1).threads == 1
    os.utime(paths[1], (0, 0))
    assert load_calibration().threads == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-3], "Expecting"),
        (lambda text: "", "Expecting value"),
        (lambda text: "[]", "it is no calibration of format 1"),
        (lambda text: "[" * 100_000, "recursion"),
        (lambda text: _changed(text, format=2), "it is no calibration of format 1"),
        (lambda text: _changed(text, dtype="float64"), "it is no calibration of format 1"),
        (lambda text: _changed(text, threads=0), "the number of threads is none"),
        (lambda text: _changed(text, name=3), "a name is no text"),
        (lambda text: _changed(text, restart=-1), "a time is no number of seconds"),
        (lambda text: _changed(text, fresh=None), "a time is no number of seconds"),
        (lambda text: _changed(text, kernel={}), "the kernel has a time for everything that is counted"),
        (lambda text: _changed(text, runs=3), "a grid has `axes` and `values`"),
        (lambda text: _changed(text, runs={"axes": [[1]], "values": [1.0]}), "the grid 'runs' has 1 axes, not 3"),
        (lambda text: _changed(text, stream={"axes": [[1, 2]], "values": [1.0]}), "one value for every point"),
        (lambda text: _changed(text, stream={"axes": [["1"]], "values": [1.0]}), "whole numbers"),
        (lambda text: _changed(text, stream={"axes": [[1]], "values": [0]}), "positive and finite"),
        (lambda text: _changed(text, fresh=10**399), "a number has 400 digits"),
        (lambda text: text.replace('"torch"', '"torsch"'), "it lacks 'torch'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_told_and_not_used(change: Any, reason: str) -> None:
    path = store_calibration(own())
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    found = load_calibration()
    assert found == replace(typical_calibration(), remark=found.remark)
    assert found.remark.startswith(f"the calibration {path} cannot be used (")
    assert found.remark.endswith(f"): times of a typical machine; {REMEDY}")
    assert reason in found.remark


def _changed(text: str, **changes: Any) -> str:
    return json.dumps({**json.loads(text), **changes})


def test_a_damaged_file_is_passed_over_for_an_older_one() -> None:
    older, newer = (store_calibration(own(threads=threads)) for threads in (1, 2))
    os.utime(older, (1, 1))
    newer.write_text("{}", encoding="utf-8")
    assert load_calibration().threads == 1


def test_another_machine_is_no_measure() -> None:
    path = store_calibration(calibration())
    found = load_calibration()
    assert not found.calibrated
    assert found.remark.startswith(f"the calibration {path} is of another machine (a processor): times of a typical")


def test_an_accelerator_has_a_name_of_its_own() -> None:
    kept = replace(calibration(), device="cuda", name="NVIDIA H100 80GB HBM3", kernel=None)
    assert store_calibration(kept).name == "cuda-NVIDIA-H100-80GB-HBM3-1.json"
    assert load_calibration("cuda").name == kept.name
    assert not load_calibration().calibrated


def test_an_interruption_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    path = store_calibration(own())
    before = path.read_text(encoding="utf-8")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quanta_compiler.system.files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store_calibration(own(fresh=1.0))
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert path.read_text(encoding="utf-8") == before


def test_without_a_cache_folder_the_typical_machine_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "file"))
    assert load_calibration() == typical_calibration()
    with pytest.raises(OSError, match="file"):
        store_calibration(own())
