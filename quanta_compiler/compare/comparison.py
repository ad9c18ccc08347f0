"""A comparison: its rows, in order, with what they share."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from quanta_compiler.compare.entrants import CompareError
from quanta_compiler.compare.row import COLUMNS, SORTABLE, Row
from quanta_compiler.diagnostics import Diagnostic, offered
from quanta_compiler.text.words import plural

_BETTER = {column.key: column.better for column in COLUMNS}


def check_sort(key: str) -> None:
    """Raise CompareError where rows cannot be sorted by a figure of that name."""
    if key not in SORTABLE:
        hint = offered(key, SORTABLE, f"choose one of {', '.join(SORTABLE)}", mark="'")
        raise CompareError(f"there is no figure {key!r}: {hint}", "--sort")


@dataclass(frozen=True)
class Comparison:
    """Layouts and methods side by side, for one layer or for a model."""

    rows: tuple[Row, ...]
    tokens: int
    device: str
    """What the times are of."""
    origin: str
    """Whether the times were `measured` on this machine, by `quanta bench --calibrate`, are of a `typical` one, or are
    `computed` from a data sheet."""
    remark: str
    """Why it is not this machine; empty where it is."""
    percent_of: str
    model: dict[str, Any] | None = None
    """`name`, `parameters`, `targets` (shapes and numbers of the layers) and `layers` where it is for a model."""
    problems: tuple[Diagnostic, ...] = ()
    """What was wrong with those that are left out, and warnings of those that are not."""

    @property
    def calibrated(self) -> bool:
        """Say whether the times are of this machine."""
        return self.origin == "measured"

    def __repr__(self) -> str:
        return f"Comparison({self.title}: {', '.join(row.name for row in self.rows)})"

    @property
    def failed(self) -> bool:
        """Say whether something is left out."""
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def title(self) -> str:
        """Return what is compared, in one line."""
        if self.model is not None:
            targets = ", ".join(f"{one['layers']} {one['target']}" for one in self.model["targets"])
            modules = plural(self.model["layers"], "module")
            return f"{self.model['name']}, {modules} ({targets}), {self.tokens:,} tokens"
        if not self.rows:
            return f"nothing to compare, {self.tokens:,} tokens"
        shapes = dict.fromkeys(f"{row.in_features} -> {row.out_features}" for row in self.rows)
        return f"one layer, {', '.join(shapes)} features, {self.tokens:,} tokens"

    def sorted_by(self, key: str, reverse: bool = False) -> Comparison:
        """Return the same rows, the best figure `key` first; rows without it, and then misfits, come last.

        Raises:
            CompareError: there is no such figure.

        """
        check_sort(key)
        known = [row for row in self.rows if getattr(row, key) is not None]
        known.sort(key=lambda row: getattr(row, key), reverse=(_BETTER[key] == "higher") != reverse)
        rows = (*known, *(row for row in self.rows if getattr(row, key) is None))
        return replace(self, rows=tuple(sorted(rows, key=lambda row: row.is_misfit)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as data that JSON can hold."""
        return {
            "title": self.title,
            "tokens": self.tokens,
            "device": {
                "name": self.device,
                "origin": self.origin,
                "calibrated": self.calibrated,
                "remark": self.remark,
            },
            "percent_of": self.percent_of,
            "model": self.model,
            "columns": [asdict(column) for column in COLUMNS],
            "rows": [asdict(row) for row in self.rows],
            "problems": [problem.to_dict() for problem in self.problems],
        }

    def to_json(self) -> str:
        """Return the same as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def _repr_html_(self) -> str:
        """Return the table, under a picture where matplotlib is installed, for a notebook."""
        from quanta_compiler.pages.fragments import comparison_fragment

        return comparison_fragment(self.to_dict())

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, one line of keys first; what there is not is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return text.getvalue()
