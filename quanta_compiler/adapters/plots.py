"""The picture of an analysis: spectra, effective rank by depth, and the subspace similarity of two adapters.

Figures are made without pyplot: no state is shared with the caller's own plots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quanta_compiler.adapters.analysis import Analysis, LayerFigures, Similarity
from quanta_compiler.diagnostics import Diagnostic, clip, warning
from quanta_compiler.text.quantities import figure_text
from quanta_compiler.text.words import evenly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

Kinds = dict[str, list[list[LayerFigures]]]
"""The layers of one kind, by its name, for every adapter."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart without seeing colours as most people do."""
_COLUMNS = 4
_PANEL = 2.1
"""Inches; four panels are as wide as the text of a page."""
_KINDS_DRAWN = 8
_MAPS_DRAWN = 12
_WIDE = 20.0
"""From this ratio on effective ranks are drawn on a logarithmic axis."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 8.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "quanta",
    "pdf.fonttype": 42,
}


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
        return min(_COLUMNS, self.panels)

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
    maps = _drawn_maps(analysis.similarities)
    thin = " (thin: every layer; bold: their median)" if deep else ""
    sections = (
        _Section(f"Singular values of the updates{thin}", len(kinds), partial(_draw_spectra, analysis, kinds)),
        _Section("Effective rank of the updates", len(deep), partial(_draw_depths, analysis, deep), 0.8 * _PANEL),
        _Section(
            "Subspace similarity of the first $i$ and $j$ right singular vectors",
            len(maps),
            partial(_draw_maps, analysis, maps),
            shares_y=False,
        ),
    )
    drawn = [section for section in sections if section.panels]
    heights = [section.rows * section.height + 0.35 for section in drawn]
    width = max(4.4, _PANEL * max(section.columns for section in drawn))
    legend = 0.17 * len(analysis.adapters) + 0.1
    figure = Figure(figsize=(width, sum(heights) + legend), layout="constrained")
    head, *blocks = figure.subfigures(len(drawn) + 1, 1, height_ratios=[legend, *heights], squeeze=False)[:, 0]
    _draw_legend(analysis, head)
    for section, block in zip(drawn, blocks, strict=True):
        block.suptitle(section.title, fontsize=9, fontweight="bold", x=0.01, ha="left")
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
    longest = max((it.rank for adapter in analysis.adapters for it in adapter.layers), default=1)
    for groups, axes in zip(kinds.values(), panels, strict=True):
        for place, group in enumerate(groups):
            colour = _COLOURS[place % len(_COLOURS)]
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
        axes.set_yscale("log")
        if longest > 16:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
    _label(panels, kinds, "index $k$", "singular value $s_k$")


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
                color=_COLOURS[place % len(_COLOURS)],
                marker="o",
                markersize=2.5,
                linewidth=1.0,
            )
        if is_wide:
            axes.set_yscale("log")
            _plain_numbers(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _label(panels, kinds, "block", "effective rank")


def _label(panels: Sequence[Axes], kinds: Iterable[str], x: str, y: str) -> None:
    for kind, axes in zip(kinds, panels, strict=True):
        axes.set_title(clip(kind, 40))
        axes.set_xlabel(x)
        axes.grid(visible=True, which="major", linewidth=0.3, alpha=0.5)
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel(y)


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 1, 10, 100, not with powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: figure_text(value)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _drawn_maps(similarities: Sequence[Similarity]) -> list[Similarity]:
    """Return the similarities to draw, kind by kind, evenly spaced over the blocks where there are too many."""
    groups: dict[tuple[int, str], list[Similarity]] = {}
    for one in similarities:
        if min(one.phi.shape):
            groups.setdefault((one.other, _kind(one.layer)), []).append(one)
    share = max(1, _MAPS_DRAWN // max(1, len(groups)))
    share = share - share % _COLUMNS if share > _COLUMNS else share
    return [one for members in groups.values() for one in evenly(members, share)][:_MAPS_DRAWN]


def _draw_maps(analysis: Analysis, maps: Sequence[Similarity], panels: Sequence[Axes]) -> None:
    """Draw phi(i, j) of every pair of updates on one scale from 0 to 1."""
    from matplotlib.ticker import MaxNLocator

    names = _names(analysis)
    titles = _map_titles([one.layer for one in maps])
    several = len(analysis.adapters) > 2
    image = None
    for place, (one, axes) in enumerate(zip(maps, panels, strict=True)):
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
        axes.spines[:].set_visible(True)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        if place % _COLUMNS == 0:
            axes.set_ylabel(f"$i$, {names[0]}")
        if place + _COLUMNS >= len(maps) or several:
            axes.set_xlabel(f"$j$, {names[one.other]}")
    assert image is not None
    panels[0].figure.colorbar(image, ax=list(panels), label="$\\phi(i, j)$", shrink=0.7, aspect=25, pad=0.02)


def _map_titles(layers: Sequence[str]) -> Mapping[str, str]:
    """Return `q_proj, block 3`, or names without their common start where that would not tell layers apart."""
    short = {layer: _kind(layer) + ("" if (depth := _depth(layer)) is None else f", block {depth}") for layer in layers}
    if len(set(short.values())) == len(short):
        return {layer: clip(title, 40) for layer, title in short.items()}
    parts = {layer: layer.split(".") for layer in layers}
    columns = zip(*(words[:-1] for words in parts.values()), strict=False)
    shared = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, columns))
    return {layer: clip(".".join(words[shared:]), 40) for layer, words in parts.items()}


def _names(analysis: Analysis) -> list[str]:
    """Return what pictures call the adapters: their folders' names, or the whole paths where two are alike."""
    paths = [Path(adapter.path) for adapter in analysis.adapters]
    names = [path.resolve().name for path in paths]
    return [clip(name if len(set(names)) == len(names) else str(path)) for name, path in zip(names, paths, strict=True)]


def _draw_legend(analysis: Analysis, head: SubFigure) -> None:
    from matplotlib.lines import Line2D

    names = _names(analysis)
    handles = [Line2D([], [], color=_COLOURS[place % len(_COLOURS)], linewidth=1.6) for place in range(len(names))]
    labels = [f"{name} ({adapter.description})" for name, adapter in zip(names, analysis.adapters, strict=True)]
    head.legend(handles, labels, loc="center left", frameon=False, ncols=1, borderaxespad=0.3)


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
