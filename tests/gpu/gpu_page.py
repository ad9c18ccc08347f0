"""The report of a GPU as a page, in the style of all pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from gpu_sections import Section

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main class="broad">
<header>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
</header>
{body}
<footer>Written by quanta-compiler.</footer>
</main>
</body>
</html>
"""


def page(report: dict[str, Any], sections: Sequence[Section], wrong: Sequence[str]) -> str:
    """Return the page; all text is escaped."""
    machine = report["machine"]
    where = machine.get("card") or machine["processor"]
    facts = {key: machine.get(key) for key in ("driver", "cuda", "triton", "torch", "peft", "quanta_compiler")}
    versions = ", ".join(f"{key} {value}" for key, value in facts.items() if value)
    subtitle = f"{versions} · {report['measured']} · {report['seconds']:.0f} s"
    if report["quick"]:
        subtitle += " · a quick look at tiny circuits: the times say nothing"
    body = [_card("What is wrong", "", _list(wrong))] if wrong else []
    body += [_section(one) for one in sections]
    return _PAGE.format(
        title=escape(f"Circuits on {where}"),
        subtitle=escape(subtitle),
        style=files("quanta_compiler.pages").joinpath("assets/page.css").read_text(encoding="utf-8"),
        body="\n".join(body),
    )


def _section(section: Section) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in section.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in section.rows)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    left_out = ""
    if section.left_out:
        left_out = f"<details><summary>Left out: {len(section.left_out)}</summary>{_list(section.left_out)}</details>"
    return _card(section.title, section.remark, (table if rows else "<p>Nothing was measured.</p>") + left_out)


def _card(title: str, remark: str, inside: str) -> str:
    says = f'<p class="says">{escape(remark)}</p>'
    return f'<section class="card whole">\n<h2>{escape(title)}</h2>\n{says}\n{inside}\n</section>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
