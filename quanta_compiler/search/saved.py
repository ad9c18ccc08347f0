"""Candidates and chunks as JSON, for the journal and front.json; the figures are computed again when they are read."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from quanta_compiler.search.chunks import ChunkResult, Settings
from quanta_compiler.search.costs import LayoutCosts
from quanta_compiler.search.fit import Fit
from quanta_compiler.search.front import Candidate
from quanta_compiler.search.space import Layout, Space
from quanta_compiler.search.words import Letter

VERSION = 2
"""Of what a chunk is and finds: a journal of another version is of no use."""
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a line that lacks something, or has something else in its place, raises when it is read."""


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
