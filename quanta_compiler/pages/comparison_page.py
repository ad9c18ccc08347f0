"""The page of a comparison: cost against parameters, and every figure in a table that sorts and filters."""

import re
from pathlib import PurePath
from typing import Any

from quanta_compiler.pages.page import assemble
from quanta_compiler.presets import REFERENCE


def comparison_page(data: dict[str, Any]) -> str:
    """Return compare.html from the data of `quanta compare --json`.

    Files are called by their names alone: a page that is passed on says nothing of the folders of its writer.
    """
    named = {
        **data,
        "rows": [{**row, "source": _without_folders(row["source"])} for row in data["rows"]],
        "problems": [{**one, "source": _without_folders(one["source"])} for one in data["problems"]],
        "reference": REFERENCE,
    }
    scripts = ("common.js", "filter.js", "scatter.js", "findings.js", "comparison.js")
    return assemble("comparison.html", scripts, data["title"], named)


def _without_folders(source: str) -> str:
    """Return `FILE`, or `TARGET=FILE,TARGET=FILE`, with the names of the files alone."""
    return re.sub(r"[^=,]+", lambda part: PurePath(part[0]).name or part[0], source)
