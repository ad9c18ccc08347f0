"""What a search leaves in its folder: chunks for the journal, a circuit file for every layout of the front, front.json.

Figures are not saved: they are computed again when a candidate is read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from quanta_compiler.emit.files import write_files
from quanta_compiler.search.chunks import ChunkResult, Settings
from quanta_compiler.search.costs import LayoutCosts
from quanta_compiler.search.fit import Fit
from quanta_compiler.search.front import Candidate
from quanta_compiler.search.space import Layout, Space
from quanta_compiler.search.words import Letter
from quanta_compiler.system.files import OutputError

VERSION = 2
"""Of what a chunk is and finds: a journal of another version is of no use."""
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a line that lacks something, or has something else in its place, raises when it is read."""
FRONT_FILE = "front.json"
_FIRST_LINE = "# Found by `quanta search`, as it wrote it: "
"""Followed by a digest of the rest: a file that has it and was not edited may be written again."""


def settings_data(settings: Settings) -> dict[str, Any]:
    """Return what decides the result of a search, as JSON has it."""
    data: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **asdict(settings)}))
    return data


def costed(space: Space, layout: Layout, gates: Sequence[Letter]) -> Candidate:
    """Return a circuit with its figures."""
    letters = tuple(sorted(set(gates)))
    costs = LayoutCosts(layout, letters, space.in_features, space.out_features)
    word = tuple(map(letters.index, gates))
    return Candidate(layout, tuple(gates), costs.figures(word), costs.order_figures(word))


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """Return what identifies a candidate."""
    data: dict[str, Any] = {"layout": list(candidate.layout.before)}
    if candidate.layout.changed_axis is not None:
        data["to"] = list(candidate.layout.after)
    data["gates"] = [list(gate.axes) for gate in candidate.gates]
    if any(gate.rank for gate in candidate.gates):
        data["ranks"] = [gate.rank for gate in candidate.gates]
    return data


def read_candidate(space: Space, data: dict[str, Any]) -> Candidate:
    """Return a candidate from what identifies it."""
    layout = Layout(tuple(data["layout"]), tuple(data.get("to", data["layout"])))
    ranks = data.get("ranks", [0] * len(data["gates"]))
    gates = tuple(Letter(tuple(axes), rank) for axes, rank in zip(data["gates"], ranks, strict=True))
    return costed(space, layout, gates)


def result_data(result: ChunkResult) -> dict[str, Any]:
    """Return a chunk's result as a line of the journal has it."""
    data: dict[str, Any] = {"chunk": result.name, "seen": result.seen, "met": result.met}
    if result.estimate:
        data["estimate"] = list(result.estimate)
    return {**data, "front": [candidate_data(candidate) for candidate in result.front]}


def read_result(space: Space, data: dict[str, Any]) -> ChunkResult | None:
    """Return a chunk's result from its line of the journal; None where it is no whole one: the chunk is run again."""
    try:
        result = ChunkResult(
            name=data["chunk"],
            seen=data["seen"],
            met=data["met"],
            front=tuple(read_candidate(space, one) for one in data["front"]),
            estimate=tuple(data.get("estimate", ())),
        )
        estimated = space.gates[1] + 1 if result.name.startswith("drawn") else 0
    except _DAMAGED:
        return None
    is_whole = _are_numbers(result.seen, result.met, *result.estimate) and len(result.estimate) == estimated
    return result if is_whole else None


def read_fit(data: dict[str, Any]) -> Fit | None:
    """Return a fit from its line of the journal; None where it is no whole one."""
    try:
        fit = Fit(**data["result"])
    except _DAMAGED:
        return None
    return fit if isinstance(fit.name, str) and _are_numbers(fit.error, fit.lora_rank, fit.lora_error) else None


def _are_numbers(*values: object) -> bool:
    return all(type(value) in (int, float) for value in values)


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
    before = (_front_of(folder / FRONT_FILE) or {"front": []})["front"]
    named = [row.get("file") for row in before if isinstance(row, dict)]
    written = {file for file, _ in files.values()}
    old = [folder / name for name in named if isinstance(name, str) and Path(name).name == name not in written]
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


def _front_of(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "search" in data and isinstance(data.get("front"), list) else None
