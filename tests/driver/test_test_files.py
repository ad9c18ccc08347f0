"""Files of tests stay small, and are named after what they test."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_file_is_long() -> None:
    lengths = {
        file.relative_to(TESTS).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in TESTS.rglob("*.py")
        if TESTS / "golden" not in file.parents
    }
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_names_are_their_own() -> None:
    """Folders of tests are no packages: of two files of one name pytest would import one."""
    names = [file.name for file in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names))
    assert not [name for name in names if "review" in name]
