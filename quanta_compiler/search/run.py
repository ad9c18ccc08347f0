"""A whole search: explored, its front planned and fitted, everything written to its folder."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quanta_compiler.compare.figures import Conditions, circuit_row
from quanta_compiler.compare.row import Row
from quanta_compiler.diagnostics import refusal
from quanta_compiler.driver import compile_circuit
from quanta_compiler.search.binding import nothing_found, refuse_impossible, widths_text
from quanta_compiler.search.chunks import Settings
from quanta_compiler.search.explore import Exploration, explore
from quanta_compiler.search.fit import Fit, FitOptions, FitTask, run_fit
from quanta_compiler.search.front import Candidate
from quanta_compiler.search.journal import FILE, Journal
from quanta_compiler.search.saved import (
    candidate_data,
    circuit_document,
    circuit_text,
    read_fit,
    read_result,
    refuse_foreign,
    result_data,
    settings_data,
    write_front,
)
from quanta_compiler.search.workers import Team, Workers, team
from quanta_compiler.text.console import Progress
from quanta_compiler.text.quantities import amount_text, bytes_text, figure_text
from quanta_compiler.text.words import evenly, plural

_FEW_PLANS = 8
"""Up to this many are planned sooner than processes are started."""
_UNPLANNED = ("name", "kind", "source", "in_features", "out_features", "layers", "numerical_rank", "note")
"""Columns of a comparison that say nothing about a found layout."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be searched, and how."""

    settings: Settings
    folder: Path
    conditions: Conditions
    """The batch and the machine that the front is planned for."""
    workers: Workers
    deadline: float | None = None
    """A time of `time.monotonic`."""
    resume: bool = False
    force: bool = False
    most: int | None = None
    """How many layouts of the front, spread over it, are planned, fitted and written at most; None: all."""
    fit: FitOptions | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One layout of the front with all that is known about it."""

    candidate: Candidate
    document: dict[str, Any]
    row: Row
    """The figures of the planned circuit."""
    fits: tuple[Fit, ...] = ()

    @property
    def error(self) -> float | None:
        """Return the relative error of the fits, the root of their mean square; None where there is none."""
        return _root_mean_square([fit.error for fit in self.fits])

    @property
    def lora_error(self) -> float | None:
        """Return that of LoRA with as many parameters."""
        return _root_mean_square([fit.lora_error for fit in self.fits])

    @property
    def explained_per_1000(self) -> float | None:
        """Return the share of the updates' squares that a thousand parameters reach."""
        error = self.error
        return None if error is None else (1 - error * error) * 1000 / self.candidate.figures.parameters

    def to_dict(self) -> dict[str, Any]:
        """Return it as front.json has it."""
        figures, order = self.candidate.figures, self.candidate.order
        data = {
            "name": self.document["name"],
            "file": f"{self.document['name']}.yaml",
            **candidate_data(self.candidate),
            "figures": {**figures._asdict(), **order._asdict()},
            "planned": {key: value for key, value in asdict(self.row).items() if key not in _UNPLANNED},
        }
        if self.fits:
            data["fit"] = {
                "relative_error": self.error,
                "lora_relative_error": self.lora_error,
                "explained_per_1000_parameters": self.explained_per_1000,
                "updates": [asdict(fit) for fit in self.fits],
            }
        return data


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search has found."""

    request: Request
    exploration: Exploration
    found: tuple[Found, ...]
    unfitted: int = 0
    """How many fits the time did not suffice for."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as front.json has it."""
        seen = {key: value for key, value in asdict(replace(self.exploration, front=())).items() if key != "front"}
        conditions = self.request.conditions
        said = ("name", "threads", "calibrated", "remark")
        return {
            "search": settings_data(self.request.settings),
            "planned_tokens": conditions.tokens,
            "device": {key: getattr(conditions.calibration, key) for key in said},
            "exploration": {**seen, "front": len(self.exploration.front), "unfitted": self.unfitted},
            "front": [one.to_dict() for one in self.found],
        }


def search(request: Request, progress: Progress | None = None) -> Outcome:
    """Search, and write the front into the request's folder.

    Raises:
        SpecError: no layout meets the limits, the cluster is not there, an update cannot be read, or the folder holds
            another search.
        OutputError: something that no search wrote stands in the way, or a file cannot be written.

    """
    progress = progress or Progress()
    refuse_foreign(request.folder)
    refuse_impossible(request.settings)
    with team(request.workers) as workers:
        path, settings = request.folder / FILE, settings_data(request.settings)
        journal = Journal(path, settings, resume=request.resume, force=request.force)
        try:
            return _search(request, journal, workers, progress)
        finally:
            journal.close()


def _search(request: Request, journal: Journal, workers: Team, progress: Progress) -> Outcome:
    space = request.settings.space
    done = [result for line in journal.lines if (result := read_result(space, line)) is not None]
    exploration = explore(
        request.settings,
        workers,
        done={result.name: result for result in done},
        finished=lambda result: journal.add(result_data(result)),
        deadline=request.deadline,
        progress=progress,
    )
    if not exploration.front:
        if not exploration.is_finished:
            seen = f"{exploration.seen:,} were costed"
            message = f"the time was over before a layout of {widths_text(space)} met the limits ({seen})"
            raise refusal("quanta", message, hint="go on with --resume and more --time")
        journal.remove()  # Nothing in it is worth going on with.
        explored = partial(explore, team=workers, deadline=request.deadline, progress=progress)
        raise nothing_found(request.settings, exploration, explored)
    chosen = evenly(exploration.front, request.most or len(exploration.front))
    documents = [circuit_document(space, candidate) for candidate in chosen]
    rows = _planned(request, documents, workers, progress)
    found = tuple(
        Found(candidate, document, rows[document["name"]])
        for candidate, document in zip(chosen, documents, strict=True)
    )
    # What was found is kept, whatever becomes of the fits.
    outcome = _written(request, exploration, found)
    fits = _fitted(request, documents, journal, workers, progress)
    if not fits:
        return outcome
    return _written(request, exploration, tuple(replace(one, fits=fits[one.document["name"]]) for one in found))


def _written(request: Request, exploration: Exploration, found: tuple[Found, ...]) -> Outcome:
    wanted = len(found) * len(request.fit.updates.keys) if request.fit else 0
    unfitted = wanted - sum(len(one.fits) for one in found)
    outcome = Outcome(request, exploration, found, unfitted)
    texts = {one.document["name"]: circuit_text(one.document, _remarks(one)) for one in found}
    write_front(request.folder, texts, outcome.to_dict())
    return outcome


def plan_row(conditions: Conditions, document: dict[str, Any]) -> Row:
    """Return the figures of a circuit as it is planned, the time of a batch included."""
    return circuit_row(document["name"], compile_circuit(document, conditions.tokens), conditions)


def _planned(
    request: Request, documents: Sequence[dict[str, Any]], workers: Team, progress: Progress
) -> dict[str, Row]:
    progress.begin("planning the front", len(documents))
    rows = {}
    for row in workers.results(partial(plan_row, request.conditions), documents, is_small=len(documents) <= _FEW_PLANS):
        rows[row.name] = row
        progress.advance()
    return rows


def _fitted(
    request: Request, documents: Sequence[dict[str, Any]], journal: Journal, workers: Team, progress: Progress
) -> dict[str, tuple[Fit, ...]]:
    """Return the fits of each circuit by its name, in the order of the updates; none of the journal is done again."""
    options = request.fit
    if options is None:
        return {}
    mark = options.digest()
    saved = [read_fit(line) for line in journal.lines if line.get("options") == mark]
    done = {fit.name: fit for fit in saved if fit is not None}
    tasks = [FitTask(document, key) for document in documents for key in options.updates.keys]
    waiting = [task for task in tasks if task.name not in done]
    progress.begin("fitting the front", len(waiting))
    for fit in workers.results(partial(run_fit, options), waiting, request.deadline):
        journal.add({"fit": fit.name, "options": mark, "result": asdict(fit)})
        done[fit.name] = fit
        progress.advance()
    return {
        document["name"]: tuple(done[task.name] for task in tasks if task.document is document and task.name in done)
        for document in documents
    }


def _remarks(found: Found) -> list[str]:
    """Return what a circuit's file says about it: nothing that depends on the machine."""
    figures, order = found.candidate.figures, found.candidate.order
    full, mix = order.gates_to_full, order.gates_to_mix
    remarks = [
        f"parameters {figures.parameters:,}; FLOPs per token {amount_text(figures.flops_per_token)} gate by gate; "
        f"kept for backward {bytes_text(figures.saved_bytes_per_token)} per token",
        f"rank {figures.rank_lower:,} to {figures.rank_upper:,}; free numbers {figures.freedom:,}; "
        f"mixing {figure_text(figures.mixing)}",
        f"every output depends on every input {_after(full)}; every axis on every axis {_after(mix)}",
    ]
    if found.error is not None:
        remarks.append(f"fitted to {len(found.fits)} updates: relative error {figure_text(found.error)}")
    return remarks


def _after(gates: int | None) -> str:
    return "never" if gates is None else f"after {plural(gates, 'gate')}"


def _root_mean_square(values: Sequence[float]) -> float | None:
    return math.sqrt(math.fsum(value * value for value in values) / len(values)) if values else None
