"""What other programs do, from made-up statistics of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_compiler.system import machine
from quanta_compiler.system.machine import Load, is_crowded


def test_busy_cores_without_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = tmp_path / "stat"
    monkeypatch.setattr(machine, "_STATISTICS", statistics)
    monkeypatch.setattr("quanta_compiler.system.machine.os.sysconf", lambda name: 100)
    now, own = [10.0], [1.0]
    monkeypatch.setattr("quanta_compiler.system.machine.time.monotonic", lambda: now[0])
    monkeypatch.setattr(machine, "_own_seconds", lambda: own[0])
    # user nice system idle iowait irq softirq steal guest guest_nice
    statistics.write_text("cpu  1000 100 200 9999 888 10 20 30 500 0\ncpu0 1 2 3\n")
    measured = Load()
    now[0], own[0] = 14.0, 5.0
    statistics.write_text("cpu  1600 100 300 9999 999 20 30 110 900 0\ncpu0 1 2 3\n")
    # 8 s of all cores, 4 of them ours, in 4 s.
    assert measured.others() == pytest.approx(1.0)
    now[0] = 10.4
    assert measured.others() is None


@pytest.mark.parametrize("text", [None, "", "cpu\n", "cpu a b c d e f g h\n"])
def test_where_the_system_does_not_say(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_STATISTICS", tmp_path / "stat")
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert Load().others() is None
    assert not is_crowded(None, 4, 4)


def test_others_may_have_the_cores_that_are_left() -> None:
    assert not is_crowded(1.1, threads=1, cores=2)
    assert is_crowded(1.1, threads=2, cores=2)
    assert is_crowded(0.4, threads=8, cores=2)
    assert not is_crowded(0.1, threads=2, cores=2)


def test_a_real_measurement_is_a_number_of_cores() -> None:
    found = Load().others()
    assert found is None or found >= 0
