"""The page of a comparison: cost against parameters, and every figure in a table that sorts and filters."""

from typing import Any

from quanta_compiler.pages.page import assemble


def comparison_page(data: dict[str, Any]) -> str:
    """Return compare.html from the data of `quanta compare --json`."""
    scripts = ("common.js", "filter.js", "scatter.js", "comparison.js")
    return assemble("comparison.html", scripts, data["title"], data)
