"""The picture of an analysis: spectra, effective rank by depth, and the subspace similarity of two adapters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from quanta_compiler.adapters.analysis import Analysis, LayerFigures, Similarity
from quanta_compiler.diagnostics import Diagnostic, clip, warning
from quanta_compiler.pages.plots import SECTION, logarithmic, wrapped
from quanta_compiler.report.palette import FAMILIES
from quanta_compiler.text.words import evenly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Kinds = dict[str, list[list[LayerFigures]]]
"""The layers of one kind, by its name, for every adapter."""
_COLUMNS = 4
_PANEL = 2.1
"""Inches; four panels are as wide as the text of a page."""
_KINDS_DRAWN = 8
_MAPS_DRAWN = 12
_WIDE = 20.0
"""From this ratio on effective ranks are drawn on a logarithmic axis."""
_LEAST_WIDTH = 4.4
_LINE = 0.22
"""Of a title, in inches."""


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    panels: int
    draw: Callable[[Sequence[Axes]], None]
    height: float = _PANEL
    """Of one row, in inches."""
    shares_y: bool = True

    @property
    def columns(self) -> int:
        return -(-self.panels // self.rows)

    @property
    def rows(self) -> int:
        return -(-self.panels // _COLUMNS)


def make_figure(analysis: Analysis) -> Figure:
    """Return the figure: one section under the other, a panel per kind of layer or per pair of updates."""
    from matplotlib.figure import Figure

    kinds = dict(islice(_by_kind(analysis).items(), _KINDS_DRAWN))
    # Those that several blocks have.
    deep = {
        kind: groups
        for kind, groups in kinds.items()
        if len({_depth(it.layer) for layers in groups for it in layers} - {None}) > 1
    }
    thin = " (thin: each layer; bold: median)" if deep else ""
    sections = (
        _Section(f"Singular values of the updates{thin}", len(kinds), partial(_draw_spectra, analysis, kinds)),
        _Section("Effective rank of the updates", len(deep), partial(_draw_depths, analysis, deep), 0.8 * _PANEL),
        *_map_sections(analysis),
    )
    drawn = [section for section in sections if section.panels]
    width = max(_LEAST_WIDTH, _PANEL * max(section.columns for section in drawn))
    titles = [wrapped(section.title, 0.97 * width, SECTION["fontsize"]) for section in drawn]
    heights = [
        section.rows * section.height + 0.3 + _LINE * (1 + title.count("\n"))
        for section, title in zip(drawn, titles, strict=True)
    ]
    labels = _legend_labels(analysis, width)
    legend = 0.8 * _LINE * sum(1 + label.count("\n") for label in labels) + 0.15
    figure = Figure(figsize=(width, sum(heights) + legend), layout="constrained")
    head, *blocks = figure.subfigures(len(drawn) + 1, 1, height_ratios=[legend, *heights], squeeze=False)[:, 0]
    _draw_legend(labels, head)
    for section, title, block in zip(drawn, titles, blocks, strict=True):
        block.suptitle(title, **SECTION)
        panels = list(block.subplots(section.rows, section.columns, squeeze=False, sharey=section.shares_y).ravel())
        for unused in panels[section.panels :]:
            unused.set_visible(False)
        section.draw(panels[: section.panels])
    return figure


def _kind(layer: str) -> str:
    """Return a layer's last name component: layers of one kind share a panel."""
    return layer.rpartition(".")[2]


def _depth(layer: str) -> int | None:
    found = re.search(r"(?<![^.])\d+(?![^.])", layer)
    return int(found.group()) if found else None


def _by_kind(analysis: Analysis) -> Kinds:
    """Return the layers of every adapter by kind, in the order of the first adapter's layers."""
    kinds: Kinds = {}
    for place, adapter in enumerate(analysis.adapters):
        for figures in adapter.layers:
            kinds.setdefault(_kind(figures.layer), [[] for _ in analysis.adapters])[place].append(figures)
    return kinds


def _draw_spectra(analysis: Analysis, kinds: Kinds, panels: Sequence[Axes]) -> None:
    """Draw every layer's singular values down to its numerical rank, thin, and their median over the layers, bold."""
    from matplotlib.ticker import MaxNLocator

    longest = max((it.rank for adapter in analysis.adapters for it in adapter.layers), default=1)
    for groups, axes in zip(kinds.values(), panels, strict=True):
        for place, group in enumerate(groups):
            colour = FAMILIES[place % len(FAMILIES)]
            layers = [it for it in group if it.rank]
            for figures in layers:
                values = figures.values[: figures.rank].tolist()
                single = len(layers) == 1
                axes.plot(
                    range(1, len(values) + 1),
                    values,
                    color=colour,
                    linewidth=1.4 if single else 0.5,
                    alpha=1.0 if single else max(0.15, min(0.5, 3 / len(layers))),
                    marker="o" if len(values) == 1 else None,
                    markersize=3,
                )
            if len(layers) > 1:
                # At every index that all curves have.
                length = min(it.rank for it in layers)
                middle = torch.stack([it.values[:length] for it in layers]).quantile(0.5, dim=0).tolist()
                axes.plot(range(1, length + 1), middle, color=colour, linewidth=1.6)
        logarithmic(axes, "y")
        if longest > 16:
            logarithmic(axes, "x")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _label(panels, kinds, "index", "singular value")


def _draw_depths(analysis: Analysis, kinds: Kinds, panels: Sequence[Axes]) -> None:
    from matplotlib.ticker import MaxNLocator

    ranks = [it.effective_rank for adapter in analysis.adapters for it in adapter.layers if it.rank]
    is_wide = bool(ranks) and max(ranks) > _WIDE * min(ranks)
    for groups, axes in zip(kinds.values(), panels, strict=True):
        for place, group in enumerate(groups):
            points = [(_depth(it.layer), it.effective_rank) for it in group]
            known = sorted((depth, rank) for depth, rank in points if depth is not None and rank > 0)
            axes.plot(
                [depth for depth, _ in known],
                [rank for _, rank in known],
                color=FAMILIES[place % len(FAMILIES)],
                marker="o",
                markersize=2.5,
                linewidth=1.0,
            )
        if is_wide:
            logarithmic(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _label(panels, kinds, "block", "effective rank")


def _label(panels: Sequence[Axes], kinds: Iterable[str], x: str, y: str) -> None:
    for kind, axes in zip(kinds, panels, strict=True):
        axes.set_title(_panel_title(kind))
        axes.set_xlabel(x)
        axes.grid(visible=True)
        spec = axes.get_subplotspec()
        if spec is None or spec.is_first_col():
            axes.set_ylabel(y)


def _panel_title(text: str) -> str:
    return wrapped(clip(text, 50), _PANEL - 0.2)


def _drawn_maps(similarities: Sequence[Similarity]) -> list[Similarity]:
    """Return the similarities to draw, kind by kind, evenly spaced over the blocks where there are too many."""
    groups: dict[tuple[int, str], list[Similarity]] = {}
    for one in similarities:
        if min(one.phi.shape):
            groups.setdefault((one.other, _kind(one.layer)), []).append(one)
    share = max(1, _MAPS_DRAWN // max(1, len(groups)))
    share = share - share % _COLUMNS if share > _COLUMNS else share
    return [one for members in groups.values() for one in evenly(members, share)][:_MAPS_DRAWN]


def _map_sections(analysis: Analysis) -> Iterator[_Section]:
    """Yield a section of maps for every adapter that the first one is compared with."""
    names = adapter_names(analysis)
    drawn = _drawn_maps(analysis.similarities)
    titles = _map_titles([one.layer for one in drawn])
    for other in dict.fromkeys(one.other for one in drawn):
        maps = [one for one in drawn if one.other == other]
        title = (
            f"Subspace similarity: the first i right singular vectors of {names[0]}, and the first j of {names[other]}"
        )
        # Maps are squares: what their titles take is not taken from them.
        height = 0.95 * _PANEL + 0.75 * _LINE * max(titles[one.layer].count("\n") for one in maps)
        yield _Section(title, len(maps), partial(_draw_maps, maps, titles), height, shares_y=False)


def _draw_maps(maps: Sequence[Similarity], titles: Mapping[str, str], panels: Sequence[Axes]) -> None:
    """Draw phi(i, j) of every pair of updates on one scale from 0 to 1."""
    from matplotlib.ticker import MaxNLocator

    image = None
    for one, axes in zip(maps, panels, strict=True):
        rows, width = one.phi.shape
        image = axes.imshow(
            one.phi.tolist(),
            origin="lower",
            extent=(0.5, width + 0.5, 0.5, rows + 0.5),
            aspect="auto",
            interpolation="nearest",
            vmin=0,
            vmax=1,
            cmap="viridis",
        )
        axes.set_box_aspect(1)
        axes.set_title(titles[one.layer])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        axes.set_xlabel("j")
        axes.set_ylabel("i")
    assert image is not None
    bar = panels[0].figure.colorbar(image, ax=list(panels), label="phi(i, j)", shrink=0.8, aspect=20, pad=0.02)
    bar.outline.set_visible(False)


def _map_titles(layers: Sequence[str]) -> Mapping[str, str]:
    """Return `q_proj, block 3`, or names without their common start where that would not tell layers apart."""
    short = {layer: _kind(layer) + ("" if (depth := _depth(layer)) is None else f", block {depth}") for layer in layers}
    if len(set(short.values())) == len(short):
        return {layer: _panel_title(title) for layer, title in short.items()}
    parts = {layer: layer.split(".") for layer in layers}
    columns = zip(*(words[:-1] for words in parts.values()), strict=False)
    shared = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, columns))
    return {layer: _panel_title(".".join(words[shared:])) for layer, words in parts.items()}


def adapter_names(analysis: Analysis) -> list[str]:
    """Return what pictures call the adapters: their folders' names, or the whole paths where two are alike."""
    paths = [Path(adapter.path) for adapter in analysis.adapters]
    names = [path.resolve().name for path in paths]
    return [clip(name if len(set(names)) == len(names) else str(path)) for name, path in zip(names, paths, strict=True)]


def _legend_labels(analysis: Analysis, width: float) -> list[str]:
    named = zip(adapter_names(analysis), analysis.adapters, strict=True)
    return [wrapped(f"{name} ({adapter.description})", width - 0.5) for name, adapter in named]


def _draw_legend(labels: Sequence[str], head: SubFigure) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=FAMILIES[place % len(FAMILIES)], linewidth=1.6) for place in range(len(labels))]
    head.legend(handles, labels, loc="center left", ncols=1, borderaxespad=0.3)


def left_out(analysis: Analysis, path: Path) -> tuple[Diagnostic, ...]:
    """Warn of panels that had no room."""
    found = []
    kinds = _by_kind(analysis)
    if len(kinds) > _KINDS_DRAWN:
        message = f"the picture has {_KINDS_DRAWN} of {len(kinds)} kinds of layers"
        found.append(warning(path, message, hint="choose them with --layers"))
    maps = [one for one in analysis.similarities if min(one.phi.shape)]
    drawn = _drawn_maps(maps)
    if len(drawn) < len(maps):
        message = f"the picture has the similarity of {len(drawn)} of {len(maps)} layers, evenly spaced"
        found.append(warning(path, message, hint="choose them with --layers"))
    return tuple(found)
