"""What mkdocs does beside its own: pages and tables made of the program itself, and links that leave the folder."""

from __future__ import annotations

import ast
import fnmatch
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
TABLE = re.compile(r"^<!-- (keys|fields|presets)(?:: ([^>]+?))?\s-->$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
NOTEBOOK = re.compile(r"\]\((notebooks/\w+)\.ipynb\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here: the commands, as they explain themselves, and the notebooks."""
    files.append(File.generated(config, "commands.md", content=commands()))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=_page_of(notebook)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill tables of keys and fields in, and bring along files of the repository that a page links to."""
    filled = TABLE.sub(lambda found: _TABLES[found[1]](found[2] or ""), markdown)
    if "<!-- " in filled:
        raise ValueError(f"{page.file.src_uri} has a comment that no table fills in")
    # In a clone a link leads to the notebook itself, here to the page made of it.
    filled = NOTEBOOK.sub(r"](\1.md)", filled)
    return LINK.sub(lambda found: _brought(found, page, config, files), filled)


def commands() -> str:
    """Return the page of the commands: the help of each."""
    runner = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    parts = [
        "# Commands\n",
        "Every page of help, as `quanta COMMAND --help` prints it. With `quanta --install-completion` bash, zsh and",
        "fish complete commands, options, their choices and presets such as `lora:8`.\n",
    ]
    for arguments in ([], *([name] for name in cli.COMMANDS)):
        text = runner.invoke(cli.app, [*arguments, "--help"], prog_name="quanta", terminal_width=80).stdout
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
        return f"`{source}`" if text.strip("`") == source else f"{text} (`{source}`)"
    place = f"repository/{source}.txt" if whole.suffix not in (".svg", ".png", ".json") else f"repository/{source}"
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, content=whole.read_bytes()))
    return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"


def _page_of(notebook: Path) -> str:
    """Return the cells of a notebook as a page, with the notebook to take along."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    shown = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    return "\n\n".join([shown[0], f"This page is the notebook [{notebook.name}]({notebook.name}).", *shown[1:]]) + "\n"


def _keys(pattern: str) -> str:
    """Return the keys of the definitions of the JSON Schema with such a name as a table; of several, who has which."""
    definitions = [SCHEMA["$defs"][name] for name in fnmatch.filter(SCHEMA["$defs"], pattern)]
    labels = [_label(definition) for definition in definitions]
    rows: dict[tuple[str, str], tuple[list[str], str]] = {}
    for definition, label in zip(definitions, labels, strict=True):
        for key, value in definition["properties"].items():
            needed = "required" if key in definition.get("required", ()) and key != "kind" else _default(value)
            owners, first = rows.setdefault((key, _meaning(key, value)), ([], needed))
            owners.append(label)
            rows[key, _meaning(key, value)] = (owners, first or needed)
    if len(definitions) == 1:
        return _table(("key", "meaning", "default"), [(f"`{key}`", said, rows[key, said][1]) for key, said in rows])
    of = {pair: _owners(owners, labels) for pair, (owners, _) in rows.items()}
    cells = [(f"`{key}`", of[key, said], said, rows[key, said][1]) for key, said in rows]
    return _table(("key", "of", "meaning", "default"), cells)


def _label(definition: Mapping[str, Any]) -> str:
    """Return the word by which a file takes a definition: a kind, `two_design`, or the key that only it has."""
    properties = definition["properties"]
    words = [properties.get(key, {}).get("const") for key in ("kind", "preset", "pattern")]
    return f"`{next((word for word in words if word), 'share')}`"


def _owners(owners: list[str], labels: list[str]) -> str:
    others = [label for label in labels if label not in owners]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) < len(owners) else ", ".join(owners)


def _presets(_: str) -> str:
    """Return the presets with their own options and the defaults of these as a table."""
    shared = set(SCHEMA["$defs"]["ButterflyPreset"]["properties"])
    rows = []
    for name in fnmatch.filter(SCHEMA["$defs"], "*Preset"):
        definition = SCHEMA["$defs"][name]
        options = [
            f"`{key}`: {_meaning(key, value)} Default: {_default(value)}."
            for key, value in definition["properties"].items()
            if key not in shared
        ]
        rows.append((_label(definition), definition["description"], " ".join(options)))
    return _table(("preset", "family", "options"), rows)


def _meaning(key: str, value: Mapping[str, Any]) -> str:
    """Return what the schema says of a key, and which words it takes."""
    if key == "kind":
        return "The kind of the matrix."
    definition: Mapping[str, Any] = SCHEMA["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
    words: list[str] = next((one["enum"] for one in (definition, *definition.get("anyOf", ())) if "enum" in one), [])
    said = str(definition["description"])
    return said if not words or words[0] in said else f"{said} One of {', '.join(f'`{word}`' for word in words)}."


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


def _fields(text: str) -> str:
    """Return the fields of a record as a table: what its module says of each, or else the lines after its name here."""
    name, *lines = text.splitlines()
    here = {key.strip(): said.strip() for key, _, said in (line.partition(":") for line in lines)}
    module, _, record = name.rpartition(".")
    tree = ast.parse(Path(str(import_module(module).__file__)).read_text(encoding="utf-8"))
    records = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = records[record]
    inherited = (records[base.id] for base in found.bases if isinstance(base, ast.Name) and base.id in records)
    fields = [field for one in (*inherited, found) for field in _declared(one)]
    silent = [field for field, _, said in fields if not said and field not in here]
    unknown = here.keys() - {field for field, _, _ in fields}
    if silent or unknown:
        raise ValueError(f"{name}: {silent} have no meaning, {sorted(unknown)} are no fields")
    rows = [(f"`{field}`", type_, said or here[field]) for field, type_, said in fields]
    return f"{ast.get_docstring(found)}\n\n{_table(('key', 'type', 'meaning'), rows)}"


def _declared(record: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    for node, after in zip(record.body, [*record.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield ast.unparse(node.target), _json(ast.unparse(node.annotation)), " ".join(str(said).split())


def _json(annotation: str) -> str:
    """Return a type in the words of JSON."""
    record = re.search(r"(\w+)Report", annotation)
    if record:
        return "list of objects" if annotation.startswith("tuple") else "object"
    words = {"str": "string", "int": "integer", "float": "number", "int | None": "integer or null"}
    words |= {"tuple[str, ...]": "list of strings", "tuple[int, ...]": "list of integers"}
    words |= {"tuple[tuple[int, ...], ...]": "list of lists of integers", "dict[str, int]": "object of integers"}
    return words[annotation]


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


_TABLES: dict[str, Callable[[str], str]] = {"keys": _keys, "fields": _fields, "presets": _presets}
