"""What mkdocs does beside its own: pages and tables made of the program itself, and links that leave the folder."""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.testing import CliRunner

from quanta_compiler.cli import app as cli

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas" / "circuit.schema.json").read_text(encoding="utf-8"))
TABLE = re.compile(r"^<!-- (keys|fields): ([\w., ]+) -->$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here: the commands, as they explain themselves."""
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill tables of keys and fields in, and bring along files of the repository that a page links to."""
    filled = TABLE.sub(lambda found: _TABLES[found[1]](found[2]), markdown)
    return LINK.sub(lambda found: _brought(found, page, config, files), filled)


def commands() -> str:
    """Return the page of the commands: the help of each."""
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})
    parts = ["# Commands\n", "Every page of help, as `quanta COMMAND --help` prints it.\n"]
    for arguments in ([], *([name] for name in cli.COMMANDS)):
        text = runner.invoke(cli.app, [*arguments, "--help"], prog_name="quanta", terminal_width=100).stdout
        title = " ".join(["quanta", *arguments])
        parts.append(f"## {title}\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


def _brought(found: re.Match[str], page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the link to a file of the repository as one to a copy of it on the site; folders are only named."""
    text, path, anchor = found[1], found[2], found[3] or ""
    source = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), path)).removeprefix("../")
    whole = ROOT / source
    if not whole.exists():
        raise ValueError(f"{page.file.src_uri} links to {path}, which does not exist")
    if whole.is_dir() or whole.suffix == ".md":
        return f"{text} (`{source}`)"
    place = f"repository/{source}.txt" if whole.suffix not in (".svg", ".png", ".json") else f"repository/{source}"
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, content=whole.read_bytes()))
    return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"


def _keys(names: str) -> str:
    """Return the keys of definitions of the JSON Schema as a table."""
    rows: dict[str, tuple[str, str]] = {}
    for name in names.replace(",", " ").split():
        definition = SCHEMA["$defs"][name]
        for key, value in definition["properties"].items():
            needed = "required" if key in definition.get("required", ()) else _default(value)
            rows.setdefault(key, (_meaning(value), needed))
    return _table(("key", "meaning", "default"), [(f"`{key}`", *rest) for key, rest in rows.items()])


def _meaning(value: Mapping[str, Any]) -> str:
    for one in (value, *(value.get("allOf") or ()), *(value.get("anyOf") or ())):
        if "description" in one:
            return str(one["description"])
        if "$ref" in one:
            return _meaning(SCHEMA["$defs"][one["$ref"].rpartition("/")[2]])
    if "const" in value:
        return f"`{value['const']}`"
    return str(value.get("title", ""))


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


def _fields(names: str) -> str:
    """Return the fields of records, with what their module says of each, as tables."""
    tables = []
    for name in names.replace(",", " ").split():
        module, _, record = name.rpartition(".")
        tree = ast.parse(Path(str(import_module(module).__file__)).read_text(encoding="utf-8"))
        (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == record)
        rows = [(f"`{field}`", f"`{type_}`", meaning) for field, type_, meaning in _declared(found)]
        tables.append(f"{ast.get_docstring(found)}\n\n{_table(('key', 'type', 'meaning'), rows)}")
    return "\n".join(tables)


def _declared(record: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    for node, after in zip(record.body, [*record.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield ast.unparse(node.target), ast.unparse(node.annotation), " ".join(str(said).split())


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


_TABLES: dict[str, Callable[[str], str]] = {"keys": _keys, "fields": _fields}
