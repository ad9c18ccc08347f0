"""Pictures of circuits, analyses and measurements in headless Chromium: no text is cut, covered or faint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browser import LOW_CONTRASTS, Open, emulate, texts
from comparison_data import comparison, many_rows
from lora_folders import diagonal_lora, save_lora

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.pages.fragments import _scatter
from quanta_compiler.pages.page import still_page
from quanta_compiler.pages.plots import render
from quanta_compiler.report.svg import render_svg

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

CROWDED = """
    const frame = document.querySelector("svg").getBoundingClientRect();
    const found = [...document.querySelectorAll("svg text")];
    const boxes = found.map((one) => [one.textContent, one.getBoundingClientRect()]);
    const isInside = (box) => box.left >= frame.left - 1 && box.right <= frame.right + 1;
    const cut = boxes.filter(([, box]) => !isInside(box) || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
    const shared = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
    const meet = ([, a], [, b]) => shared(a, b, "left", "right") > 1 && shared(a, b, "top", "bottom") > 3;
    const covered = boxes.filter((one, place) => boxes.slice(place + 1).some((other) => meet(one, other)));
    return [...cut, ...covered].map(([text]) => text);
"""
"""The texts of a picture that are cut at its edge or lie over each other."""
LONG = "a-run-with-a-rather-long-name-as-those-of-sweeps-are"


def shown(svg: str) -> str:
    return still_page("a picture", f'<main class="card"><div class="wide">{svg[svg.index("<svg") :]}</div></main>')


def analysis_page(folder: Path) -> str:
    import torch

    from quanta_compiler.adapters.analysis import analyze
    from quanta_compiler.adapters.pictures import write_picture
    from quanta_compiler.adapters.saved import read_adapter

    kinds = ("q_proj", "v_proj", "query_key_value_projection_of_all_heads", "o_proj", "up")
    names = [f"model.layers.{block}.{kind}" for block in (0, 3) for kind in kinds]
    for name, rank in ((LONG, 3), ("other", 4), (f"{LONG}-2", 2)):
        save_lora(
            folder / name, {one: diagonal_lora([3, 2, 1, 0.5][:rank], range(rank), (6, 8)) for one in names}, rank
        )
    saved = [read_adapter(folder / name, None) for name in (LONG, "other", f"{LONG}-2")]
    write_picture(
        analyze(saved, vectors=8, device=torch.device("cpu"), advance=lambda: None), folder / "analysis.html", 4
    )
    return (folder / "analysis.html").read_text(encoding="utf-8")


def made_up_bench() -> Any:
    from quanta_compiler.bench.limits import Limits
    from quanta_compiler.bench.options import FORWARD, MODES, TRAINING
    from quanta_compiler.bench.result import Bench, ContestantFigures, ModeFigures, Section
    from quanta_compiler.bench.timing import Timing

    def timing(seconds: float) -> Timing:
        return Timing(seconds, (0.9 * seconds, 1.3 * seconds), 1)

    def contestant(name: str, place: int, modes: tuple[str, ...]) -> ContestantFigures:
        figures = {mode: ModeFigures(timing(1e-5 * 4**place), 4.0**place, 1e6, None, None, 1000) for mode in modes}
        return ContestantFigures(name, name, 10, 2**20 * (place + 1), {}, (), figures)

    names = ("fused", "torch-recomputed", "gate-by-gate", "opt-einsum", "lora-8")
    circuit = tuple(contestant(name, place, MODES) for place, name in enumerate(names))
    layers = tuple(contestant(name, place, (FORWARD, TRAINING)) for place, name in enumerate(("bare", *names[1:])))
    return Bench(
        circuit={
            "name": LONG,
            "in_features": 4096,
            "out_features": 1024,
            "layout": dict(zip("0123", (16, 8, 8, 4), strict=True)),
            "gates": 6,
        },
        settings={"tokens": 2048, "dtype": "float32", "threads": 1, "rounds": 21},
        machine={"processor": "A Processor(R) With(TM) a Long Name 8481C CPU @ 2.70GHz", "torch": "2.13.0", "cores": 2},
        others_cores=None,
        limits=Limits(timing(1e-2), 2048, timing(2e-6), 1000),
        tolerance=1e-3,
        sections=(Section("circuit", "fused", circuit), Section("adapters", "bare", layers)),
        left_out=(),
    )


def bench_page(_: Path) -> str:
    from quanta_compiler.bench.picture import make_figure

    return shown(render(partial(make_figure, made_up_bench()), "svg").decode())


def notebook_page(_: Path) -> str:
    data = comparison(many_rows(6))
    cost = next(column for column in data["columns"] if column["key"] == "step_seconds")
    return shown(render(partial(_scatter, data, cost), "svg").decode())


PICTURES: dict[str, Callable[[Path], str]] = {
    "analyze": analysis_page,
    "bench": bench_page,
    "notebook": notebook_page,
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_of_a_plot_is_cut_covered_or_faint(name: str, opened: Open, tmp_path: Path) -> None:
    page = opened(PICTURES[name](tmp_path))
    assert page.execute_script(CROWDED) == []
    for scheme in ("light", "dark"):
        emulate(page, scheme)
        assert page.execute_script(LOW_CONTRASTS) == [], scheme


def test_a_diagram_is_whole_and_has_contrast(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(shown(render_svg(mixed.circuit)))
    assert page.execute_script(CROWDED) == []
    for scheme in ("light", "dark"):
        emulate(page, scheme)
        assert page.execute_script(LOW_CONTRASTS) == [], scheme


def test_a_plot_turns_dark_with_the_screen(opened: Open) -> None:
    text = notebook_page(Path())
    page = opened(text)
    ink = "return getComputedStyle([...document.querySelectorAll('svg text')].at(-1)).fill"
    light = page.execute_script(ink)
    emulate(page, "dark")
    assert page.execute_script(ink) != light
    assert "trainable numbers" in texts(page, "svg text")


def test_a_page_of_an_analysis_fits_a_phone(opened: Open, tmp_path: Path) -> None:
    page = opened(analysis_page(tmp_path))
    assert str(tmp_path) not in page.page_source
    emulate(page, width=420)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 420
    wide = "return document.querySelector('svg').getBoundingClientRect().width"
    assert page.execute_script(wide) > 420, "its letters keep their size; the picture scrolls"
