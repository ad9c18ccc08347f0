"""The pictures of the documentation are what `quanta draw` draws of the circuit file above each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import quanta

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = [
    (page.name, file, image)
    for page in sorted(DOCS.glob("*.md"))
    for file, image in re.findall(
        r"^```yaml\n([^`]*?)^```\n\n!\[[^]]+\]\(images/([\w-]+\.svg)\)$", page.read_text(encoding="utf-8"), re.M
    )
]


@pytest.mark.parametrize(("page", "file", "image"), PICTURES, ids=[image for _, _, image in PICTURES])
def test_a_picture_is_that_of_the_file_above_it(
    page: str, file: str, image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "circuit.yaml").write_text(file, encoding="utf-8")
    result = quanta("draw", str(tmp_path / "circuit.yaml"), "-o", str(tmp_path / "drawn.svg"))
    assert result.exit_code == 0, f"{page}: {result.stderr}"
    drawn = (tmp_path / "drawn.svg").read_bytes()
    if request.config.getoption("--update-golden"):
        (DOCS / "images" / image).write_bytes(drawn)
    assert (DOCS / "images" / image).read_bytes() == drawn, f"{page}: pytest --update-golden draws it anew"


def test_every_image_is_shown_once_and_drawn_by_us() -> None:
    assert sorted(image for _, _, image in PICTURES) == sorted(file.name for file in (DOCS / "images").glob("*.svg"))
