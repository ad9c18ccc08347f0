"""One HTML file from a template, a style sheet, data and scripts.

What comes from a user goes into the page as JSON in an element that browsers do not run, and our script shows it by
`textContent` alone. The policy in the head is the second wall: it names the scripts by their hashes, and no request is
allowed at all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

_LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
_FOLDER = "quanta_compiler.pages"


def assemble(
    body: str,
    scripts: Sequence[str],
    title: str,
    data: dict[str, Any],
    blocks: dict[str, str] | None = None,
    *,
    style: str = "",
    is_live: bool = False,
) -> str:
    """Return the page whose body is the asset `body`, drawn from `data` by the assets `scripts`.

    `blocks` are pieces of HTML for the body, already escaped, and `style` are rules beside those of all pages. A live
    page may ask the server that it comes from, and has no libraries. The same input gives the same text.
    """
    texts = [_text(path) for path in (*(() if is_live else _LIBRARIES), *(f"assets/{script}" for script in scripts))]
    return _fill(
        _text("assets/page.html"),
        {
            "policy": _policy(texts) + ("; connect-src 'self'" if is_live else ""),
            # A file's name may have bytes that are no characters.
            "title": escape(title.encode("utf-8", "replace").decode()),
            "style": _text("assets/page.css") + style,
            "body": _fill(_text(f"assets/{body}"), blocks or {}),
            "data": json_for_html(data),
            "licenses": _text("vendor/LICENSES.txt"),
            "scripts": "\n".join(f"<script>{script}</script>" for script in texts),
        },
    )


def json_for_html(data: object) -> str:
    """Return JSON in ASCII that no HTML parser can see the end of an element or the start of a comment in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: list[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(path: str) -> str:
    return files(_FOLDER).joinpath(path).read_text(encoding="utf-8")


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace every `{{name}}`, in one go: what is filled in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)
