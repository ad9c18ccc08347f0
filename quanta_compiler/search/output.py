"""What a search leaves in its folder: a circuit file for every layout of the front, and front.json."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from quanta_compiler.emit.files import write_files
from quanta_compiler.search.costs import LayoutCosts
from quanta_compiler.search.front import Candidate
from quanta_compiler.search.saved import candidate_data
from quanta_compiler.search.space import Space
from quanta_compiler.system.files import OutputError

FRONT_FILE = "front.json"
_FIRST_LINE = "# Found by `quanta search`, as it wrote it: "
"""Followed by a digest of the rest: a file that has it and was not edited may be written again."""


def circuit_document(space: Space, candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as a circuit file's data; its name is the same in every search that finds it."""
    layout = candidate.layout
    changed = layout.changed_axis
    sizes = "-".join(map(str, layout.before))
    resized = "" if changed is None else f"-{layout.before[changed]}to{layout.after[changed]}"
    costs = LayoutCosts(layout, candidate.gates, space.in_features, space.out_features)
    change = costs.changing_gate(range(len(candidate.gates)))
    gates: list[Any] = []
    for place, (axes, rank) in enumerate(candidate.gates):
        gate: dict[str, Any] = {"axes": list(axes)}
        if place == change:
            gate["to"] = [layout.after[axis] for axis in axes]
        if rank:
            gate |= {"kind": "lowrank", "rank": rank}
        gates.append(gate if len(gate) > 1 else list(axes))
    return {
        "version": 1,
        "name": f"quanta-{sizes}{resized}-{_digest(json.dumps(candidate_data(candidate)), 8)}",
        "layout": list(layout.before),
        "in_features": space.in_features,
        "out_features": space.out_features,
        "gates": gates,
        # Keeps the scale however many gates there are.
        "init": "orthogonal",
    }


def circuit_text(document: Mapping[str, Any], remarks: Sequence[str]) -> str:
    """Return a circuit's file, `remarks` being its first lines."""
    sizes = "x".join(map(str, document["layout"])) if len(document["layout"]) > 1 else document["layout"][0]
    # JSON is YAML already, and none of its words needs quotes.
    gates = ("  - " + json.dumps(gate).replace('"', "") for gate in document["gates"])
    lines = [
        *(f"# {remark}".rstrip() for remark in remarks),
        f"version: {document['version']}",
        f"name: {document['name']}",
        f"layout: {sizes}",
        f"in_features: {document['in_features']}",
        f"out_features: {document['out_features']}",
        "gates:",
        *gates,
        f"init: {document['init']}  # keeps the scale, however many gates there are",
    ]
    body = "\n".join(lines) + "\n"
    return f"{_FIRST_LINE}{_digest(body)}\n{body}"


def _digest(text: str, letters: int = 12) -> str:
    return sha256(text.encode()).hexdigest()[:letters]


def write_front(folder: Path, circuits: Mapping[str, str], front: Mapping[str, Any]) -> list[Path]:
    """Write circuits (name -> text) and front.json, and remove circuits that an earlier front.json names; return paths.

    Raises:
        OutputError: a file that a search did not write stands in the way, or one cannot be written.

    """
    refuse_foreign(folder)
    files = {name: (f"{name}.yaml", text) for name, text in circuits.items()}
    for file, _ in files.values():
        path = folder / file
        if path.exists() and not _is_ours(path):
            raise OutputError(f"{path} is not as a search wrote it: move it away, or choose another folder with -o")
    old = [folder / file for file in _listed(folder) if file not in {file for file, _ in files.values()}]
    text = json.dumps(front, indent=2, allow_nan=False) + "\n"
    paths = write_files(folder, {**files, FRONT_FILE: (FRONT_FILE, text)}, force=False)
    for path in old:
        if _is_ours(path):
            path.unlink(missing_ok=True)
    return list(paths.values())


def refuse_foreign(folder: Path) -> None:
    """Raise OutputError where `folder` is no folder, or its front.json is not that of a search."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: choose another folder with -o")
    path = folder / FRONT_FILE
    if path.exists() and _front_of(path) is None:
        raise OutputError(f"{path} is not the front of a search: move it away, or choose another folder with -o")


def _is_ours(path: Path) -> bool:
    """Say whether a file is a circuit that a search wrote and nobody edited."""
    try:
        first, _, body = path.read_bytes().decode().partition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return first == f"{_FIRST_LINE}{_digest(body)}"


def _listed(folder: Path) -> list[str]:
    """Return the circuit files that front.json names, if there is one."""
    data = _front_of(folder / FRONT_FILE)
    names = [row.get("file") for row in data["front"] if isinstance(row, dict)] if data else []
    return [name for name in names if isinstance(name, str) and Path(name).name == name]


def _front_of(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "search" in data and isinstance(data.get("front"), list) else None
