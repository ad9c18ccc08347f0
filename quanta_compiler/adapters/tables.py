"""What `quanta import` and `quanta analyze` print, as tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from quanta_compiler.adapters.analysis import Analysis, AnalyzedAdapter, Similarity, similarity_points
from quanta_compiler.adapters.paper_import import PaperAdapter
from quanta_compiler.adapters.shrunk import ShrunkAdapter
from quanta_compiler.diagnostics import clip, escape
from quanta_compiler.text.quantities import figure_text, percent_text
from quanta_compiler.text.tables import Column, Table, numbers
from quanta_compiler.text.words import DASH, plural


def analysis_tables(analysis: Analysis, top: int) -> list[Table]:
    """Return a table for every adapter, and one for every pair that is compared."""
    tables = [_figures_table(adapter, top) for adapter in analysis.adapters]
    for place, other in enumerate(analysis.adapters[1:], start=1):
        similarities = [one for one in analysis.similarities if one.other == place]
        tables.append(_similarity_table(analysis.adapters[0], other, similarities))
    return tables


def _figures_table(adapter: AnalyzedAdapter, top: int) -> Table:
    columns = (
        Column("layer"),
        Column("update"),
        *numbers("rank", "effective", "stable", "norm"),
        Column(f"largest {plural(top, 'singular value')}", is_remark=True),
    )
    title = f"{escape(adapter.path)}: {escape(adapter.description)}, {plural(len(adapter.layers), 'layer')}"
    rows = [
        (
            clip(figures.layer, 160),
            f"{figures.out_features} x {figures.in_features}",
            f"{figures.rank:,}",
            figure_text(figures.effective_rank),
            figure_text(figures.stable_rank),
            figure_text(figures.frobenius_norm),
            "  ".join(map(figure_text, figures.values[: min(top, figures.rank)].tolist())),
        )
        for figures in adapter.layers
    ]
    return Table(title, columns, tuple(rows))


def _similarity_table(first: AnalyzedAdapter, other: AnalyzedAdapter, similarities: Sequence[Similarity]) -> Table:
    points = similarity_points(similarities)
    title = (
        f"subspace similarity phi(i, i) of the right singular vectors of {escape(first.path)} and {escape(other.path)}"
    )
    columns = (
        Column("layer"),
        *numbers(*(f"i = {point}" for point in points)),
        Column("chance at the last i", is_remark=True),
    )
    rows = []
    for one in similarities:
        known = [point for point in points if point <= min(one.phi.shape)]
        values = [figure_text(float(one.phi[point - 1, point - 1])) for point in known]
        # What two random subspaces of the last size would have: i / in_features.
        chance = figure_text(known[-1] / one.in_features) if known else ""
        rows.append((clip(one.layer, 160), *values, *[DASH] * (len(points) - len(known)), chance))
    return Table(title, columns, tuple(rows))


def shrunk_tables(adapter: ShrunkAdapter, paths: Mapping[str, Path]) -> list[Table]:
    """Return what was written, and layer by layer and in total what is smaller and what it cost."""
    columns = (
        Column("layer"),
        Column("update"),
        *numbers("numbers before", "after", "energy lost", "relative error"),
        Column("smaller", is_remark=True),
    )
    rows = [
        (
            clip(layer.layer, 160),
            f"{layer.out_features} x {layer.in_features}",
            f"{layer.before:,}",
            f"{layer.after:,}",
            *((figure_text(layer.lost), figure_text(layer.relative_error)) if layer.changes else (DASH, DASH)),
            layer.reason or ", ".join(change.in_words() for change in layer.changes),
        )
        for layer in adapter.layers
    ]
    lost = figure_text(adapter.lost), figure_text(adapter.largest_error)
    left = f"{percent_text(100 * adapter.after / adapter.before)} of the numbers; the error is the largest of a layer"
    rows.append(("all", "", f"{adapter.before:,}", f"{adapter.after:,}", *lost, left))
    return [_written(paths, len(adapter.tensors)), Table(f"shrunk: {escape(adapter.path)}", columns, tuple(rows))]


def _written(paths: Mapping[str, Path], tensors: int) -> Table:
    remarks = {"config": "the circuits and settings", "weights": plural(tensors, "tensor")}
    rows = tuple((escape(str(path)), remarks[kind]) for kind, path in paths.items())
    return Table("written", (Column(""), Column("", is_remark=True)), rows)


def import_tables(adapter: PaperAdapter, paths: Mapping[str, Path]) -> list[Table]:
    """Return what was written, and the layers that share a circuit and a shape, line by line."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for layer in adapter.layers:
        features, layout = f"{layer.features[0]} -> {layer.features[1]}", "x".join(map(str, layer.circuit.layout))
        groups.setdefault((features, layout, str(len(layer.circuit.pairs))), []).append(layer.keys.module)
    rows = tuple((_members(modules), *group) for group, modules in groups.items())
    heading = f"imported: {plural(len(adapter.layers), 'layer')}, residual {adapter.config.residual}"
    columns = (Column("layers"), Column("features"), Column("layout"), *numbers("gates"))
    return [
        _written(paths, len(adapter.tensors)),
        Table(heading, columns, rows),
    ]


def _members(modules: Sequence[str]) -> str:
    """Return how many layers end in which name: `32 q_proj, 32 v_proj`."""
    if len(modules) == 1:
        return clip(modules[0], 160)
    counts = Counter(module.rpartition(".")[2] for module in modules)
    return ", ".join(f"{count} {clip(ending)}" for ending, count in counts.items())
