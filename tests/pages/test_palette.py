"""One palette for all pages and pictures, and every colour of it stands out from what it is drawn on (WCAG 2, AA)."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.looks import HATCHED, PLAIN, TURNS
from quanta_compiler.pages.plots import _dark_style
from quanta_compiler.report.palette import DARK, LIGHT

ROOT = Path(__file__).parents[2]
SCHEMES = {"light": LIGHT, "dark": DARK}
PAPERS = ("page", "paper", "code")
TEXTS = [(ink, paper) for ink in ("ink", "muted") for paper in (*PAPERS, "band", "track")]
TEXTS += [("accent", paper) for paper in PAPERS] + [("accent-ink", "accent")]
GRAPHICS = [(name, "paper") for name in ("outline", "wire", "circuit", "method", "dense", "front")]
GRAPHICS += [(name, "paper") for name in LIGHT if name.startswith("family-")]
GRAPHICS += [("wire", "band"), ("accent", "track"), ("muted", "track"), ("method", "code"), ("error", "code")]
LOOKS = {kind.name: kind.look for kind in KINDS.values()} | {"plain": PLAIN, "turns": TURNS, "hatched": HATCHED}
COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours' luminances, as WCAG 2 defines it."""
    parts = [[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in (one, other)]
    linear = [[x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb] for rgb in parts]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_texts_and_graphics_stand_out(scheme: str) -> None:
    colours = SCHEMES[scheme]
    assert contrast("#ffffff", "#000000") == 21
    assert [pair for pair in TEXTS if contrast(*(colours[name] for name in pair)) < 4.5] == []
    assert [pair for pair in GRAPHICS if contrast(*(colours[name] for name in pair)) < 3] == []


@pytest.mark.parametrize("name", LOOKS)
def test_kinds_stand_out(name: str) -> None:
    look = LOOKS[name]
    for colours, fill, stroke in ((LIGHT, look.fill, look.stroke), (DARK, look.dark_fill, look.dark_stroke)):
        assert contrast(colours["ink"], fill) >= 4.5
        assert min(contrast(stroke, behind) for behind in (fill, colours["paper"], colours["band"])) >= 3


def test_both_schemes_have_the_same_names() -> None:
    assert [*LIGHT] == [*DARK]


def test_every_light_colour_of_a_plot_has_a_dark_one() -> None:
    rules = _dark_style()
    assert all(rules.count(f'"fill: {colour}"') == rules.count(f'"stroke: {colour}"') == 1 for colour in LIGHT.values())
    assert f'[style*="fill: {LIGHT["paper"]}"] {{ fill: {DARK["paper"]} !important }}' in rules


def test_no_page_or_picture_has_colours_of_its_own() -> None:
    rooms = [ROOT / "quanta_compiler" / room for room in ("pages", "report", "bench", "adapters", "watch")]
    files = [file for room in rooms for file in room.rglob("*") if file.suffix in (".py", ".css", ".js", ".html")]
    own = {
        file.name: COLOUR.findall(file.read_text(encoding="utf-8")) for file in files if file.parent.name != "vendor"
    }
    assert {name for name, found in own.items() if found} == {"palette.py", "page.css"}
    assert {*own["page.css"]} == {"#ffffff"}, "on paper the page is white"


def test_the_site_has_the_colours_of_the_pages() -> None:
    style = (ROOT / "docs" / "site.css").read_text(encoding="utf-8")
    blocks = re.findall(r'^\[data-md-color-scheme="(\w+)"\][^{]*\{([^}]*)\}', style, re.MULTILINE)
    assert [name for name, _ in blocks] == ["default", "slate"]
    for (_, block), colours in zip(blocks, SCHEMES.values(), strict=True):
        assert {*COLOUR.findall(block)} <= {*colours.values()}
    assert len(COLOUR.findall(style)) == len([*chain.from_iterable(COLOUR.findall(block) for _, block in blocks)])
