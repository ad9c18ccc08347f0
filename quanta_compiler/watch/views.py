"""What the page shows of a circuit file: its diagram, its figures beside LoRA r=8, and what is wrong with it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from quanta_compiler.compare import compare
from quanta_compiler.compare.row import Row
from quanta_compiler.compare.tables import connected_text, rank_text
from quanta_compiler.diagnostics import Diagnostic, SpecError
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.models.fitting import is_template
from quanta_compiler.presets import REFERENCE
from quanta_compiler.report.svg import render_svg
from quanta_compiler.spec import load_spec, read_data
from quanta_compiler.text.quantities import amount_text, bytes_text, percent_text, seconds_text
from quanta_compiler.text.words import DASH

TEMPLATE_WIDTH = 4096
"""A template has no widths of its own: it is shown at those of a common model."""
_SHOWN: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("trained numbers", lambda row: f"{row.trainable:,}"),
    ("of a dense layer", lambda row: percent_text(row.percent)),
    ("rank", rank_text),
    ("connected", connected_text),
    ("step, predicted", lambda row: seconds_text(row.step_seconds) if row.step_seconds else DASH),
    ("FLOPs a token", lambda row: amount_text(row.forward_flops_per_token)),
    ("kept for backward a token", lambda row: bytes_text(row.saved_bytes_per_token)),
    ("AdamW", lambda row: bytes_text(row.optimizer_bytes)),
)
"""Each figure's name, and how it is written."""


@dataclass(frozen=True)
class View:
    """A file as the page shows it; all texts are shown as they are, none is run."""

    file: str
    title: str = ""
    diagram: str = ""
    """SVG."""
    figures: list[dict[str, str]] = field(default_factory=list)
    """`name`, `value`, `reference`: that of LoRA r=8."""
    problems: list[dict[str, str]] = field(default_factory=list)
    """`severity`, and `text` with the place, the line, a caret, and the hint."""
    is_stale: bool = False
    """Whether diagram and figures are those of an earlier save, since the file cannot be compiled now."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same as data that JSON can hold."""
        return asdict(self)


def view(path: Path, before: View | None = None) -> View:
    """Return what is to be shown of a file as it stands now; where it is wrong, beside what was shown `before`."""
    try:
        return _compiled(path)
    except SpecError as error:
        problems = _told(error.diagnostics)
    except Exception as error:
        # A package's kind, too little memory: the page says so and goes on.
        problems = [{"severity": "error", "text": f"{path} cannot be shown: {type(error).__name__}: {error}"}]
    earlier = before or View(str(path))
    return replace(earlier, problems=problems, is_stale=bool(earlier.diagram))


def _compiled(path: Path) -> View:
    data = read_data(path)
    width = TEMPLATE_WIDTH if is_template(data) else None
    spec = load_spec(path, in_features=width, out_features=data.get("out_features", width) if width else None)
    file, wide, tall = os.fspath(path), spec.in_features, spec.out_features
    comparison = compare(file, baselines=REFERENCE, in_features=wide, out_features=tall)
    rows = {row.source: row for row in comparison.rows}
    if comparison.failed:
        raise SpecError(comparison.problems)
    own, other = rows[file], rows[REFERENCE]
    at = f", shown at {width} features" if width else ""
    return View(
        file,
        title=f"{spec.name}: {wide} → {tall} features{at}",
        diagram=render_svg(build_circuit(spec)),
        figures=[{"name": name, "value": show(own), "reference": show(other)} for name, show in _SHOWN],
        problems=_told(spec.warnings),
    )


def _told(diagnostics: Iterable[Diagnostic]) -> list[dict[str, str]]:
    return [{"severity": one.severity, "text": one.render()} for one in diagnostics]
