"""Where the cache folder is, and whose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quanta_compiler.system.cache_folder import cache_folder


@pytest.mark.parametrize(
    ("named", "xdg", "place"),
    [
        ("{}/mine", "{}/xdg", "mine"),
        ("~/mine", "", "home/mine"),
        ("", "{}/xdg", "xdg/quanta-compiler"),
        ("", "", "home/.cache/quanta-compiler"),
        ("", "relative", "home/.cache/quanta-compiler"),
        ("mine", "", "here/mine"),
    ],
)
def test_it_is_where_the_user_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, xdg: str, place: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("QUANTA_CACHE", named.format(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", xdg.format(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / place
    assert folder.is_dir()
    if os.name == "posix":
        assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder
