"""The first table of the guide to choosing is what `quanta compare` counts and predicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quanta_compiler.compare import compare
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.recommend.candidates import CANDIDATES

PAGE = Path(__file__).parents[2] / "docs" / "choosing.md"
ROWS = re.findall(r"^\| `([\w:=]+)` \|((?: (?:full|[\d,.]+) \|){5})$", PAGE.read_text(encoding="utf-8"), re.M)


@pytest.fixture(autouse=True)
def without_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path))


@pytest.mark.parametrize(("width", "first"), [(3072, 1), (4096, 3)])
def test_the_table_at_a_glance_is_compared(width: int, first: int) -> None:
    assert len(ROWS) == 17

    def figures(baseline: str) -> tuple[int, int | None, float]:
        (row,) = compare([], baselines=[baseline], in_features=width, out_features=width).rows
        assert row.step_seconds
        return row.trainable, row.rank_upper, row.step_seconds

    lora = figures("lora:8")[2]
    counted = {}
    for baseline, _ in ROWS:
        trainable, rank, seconds = figures(baseline)
        bound = "full" if rank == width else f"{rank}"
        counted[baseline] = [bound, f"{trainable:,}", f"{seconds / lora:.1f}"]
    told = {baseline: cells.strip(" |").split(" | ") for baseline, cells in ROWS}
    assert {baseline: [cells[0], *cells[first : first + 2]] for baseline, cells in told.items()} == counted


def test_the_families_that_are_not_recommended_are_named() -> None:
    recommended, page = {one.name.partition(",")[0] for one in CANDIDATES}, PAGE.read_text(encoding="utf-8")
    (named,) = re.findall(r"every family that sits beside its layer \(all but (.*?)\)", page)
    assert re.findall(r"`(\w+)`", named) == [name for name in PRESETS if name not in recommended]
