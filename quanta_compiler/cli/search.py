"""`quanta search`: options parsed, the search done elsewhere, its front printed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.cli.command import FAILED, guarded, without_numpy
from quanta_compiler.cli.model_layers import budgets_by_width
from quanta_compiler.cli.options import (
    Json,
    Targets,
    completed,
    count,
    numbers_of,
    one_of,
    range_of,
    some_of,
    split_names,
    width,
    wrong_option,
)
from quanta_compiler.diagnostics import Diagnostic, SpecError, clip, warning
from quanta_compiler.text.console import (
    print_json,
    print_tables,
    progress_bar,
    tell,
    tell_diagnostics,
)

if TYPE_CHECKING:
    from quanta_compiler.search.fit import FitOptions
    from quanta_compiler.search.run import Outcome, Request
    from quanta_compiler.search.space import Space

OBJECTIVE_NAMES = (
    *("parameters", "flops", "memory", "rank", "rank-upper"),
    *("mixing", "freedom", "operator", "full", "mix"),
)
BACKEND_NAMES = ("loky", "threading", "dask", "ray")
"""Both named again here so that usage and help need not load the compiler; a test compares."""
_MOST_AXES = 6
"""Axes of equal sizes may be exchanged in 720 ways then; every further axis multiplies them."""
_MOST_GATES = 64


@guarded
def search(
    *,
    max_parameters: Annotated[
        str,
        typer.Option(
            metavar="BUDGET", help="How much may train: 50k; with --model in the whole model, or a share: 0.05%."
        ),
    ],
    in_features: Annotated[
        int | None, typer.Option("--in", metavar="WIDTH", parser=width(2), help="The width of the layer's input.")
    ] = None,
    out_features: Annotated[
        int | None, typer.Option("--out", metavar="WIDTH", parser=width(2), help="The width of its output.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_ID", help="Search for every width of a model's targets; no --in and --out then."),
    ] = None,
    targets: Targets = None,
    max_flops: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count(), help="At most COUNT FLOPs a token, gate by gate.")
    ] = None,
    max_memory: Annotated[
        int | None,
        typer.Option(metavar="BYTES", parser=count(), help="At most BYTES a token kept for backward."),
    ] = None,
    min_rank: Annotated[
        int | None, typer.Option(metavar="RANK", min=1, help="The least lower bound of the rank.")
    ] = None,
    min_mixing: Annotated[
        float | None,
        typer.Option(metavar="SHARE", min=0, max=1, help="The least mixing; at 1 no split of the axes binds."),
    ] = None,
    axes: Annotated[str, typer.Option(metavar="RANGE", help="How many axes, such as 3 or 2-5.")] = "2-5",
    gates: Annotated[str, typer.Option(metavar="RANGE", help="How many gates.")] = "1-10",
    gate_axes: Annotated[
        str, typer.Option(metavar="COUNTS", help="On how many axes a gate acts: 1,2 for singles too.")
    ] = "2",
    ranks: Annotated[str | None, typer.Option(metavar="RANKS", help="Low-rank gates of these ranks as well.")] = None,
    no_rectangular: Annotated[
        bool,
        typer.Option(
            "--no-rectangular", help="Only pad or truncate where the widths differ; no axis changes its size."
        ),
    ] = False,
    allow_disconnected: Annotated[
        bool,
        typer.Option("--allow-disconnected", help="Also circuits in which an output cannot depend on every input."),
    ] = False,
    objectives: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            callback=some_of("objective", OBJECTIVE_NAMES),
            autocompletion=completed(OBJECTIVE_NAMES),
            help=f"Some of {', '.join(OBJECTIVE_NAMES)}.",
        ),
        # Parameters are limited anyway: within the limit, what gives the most for its FLOPs.
    ] = "freedom,flops,rank,mixing",
    alike: Annotated[
        int,
        typer.Option(
            metavar="COUNT", parser=count(1, 1000), help="Keep COUNT of those that are equal in all objectives."
        ),
    ] = 1,
    candidates: Annotated[
        int,
        typer.Option(metavar="COUNT", parser=count(), help="Layouts to cost: few gates first, then a sample."),
    ] = 200_000,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=2**63 - 1, help="Draws the sample, and what is fitted.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The folder of the results; by default search-IN-OUT."),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT", parser=count(), help="Write COUNT layouts of the front, spread over it; by default all."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--time", metavar="SECONDS", min=0, help="Begin nothing new after SECONDS; --resume goes on."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the search in the folder has stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew in the folder of another search.")] = False,
    jobs: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, max=4096, help="Processes; by default one a core.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="BACKEND",
            callback=one_of("backend of joblib", BACKEND_NAMES),
            autocompletion=completed(BACKEND_NAMES),
            help=f"Of joblib: {', '.join(BACKEND_NAMES)}.",
        ),
    ] = "loky",
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The cluster's scheduler, such as tcp://host:8786; implies dask."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(metavar="COUNT", parser=count(1, 2**31), help="The batch to plan the front for.")
    ] = 2048,
    fit: Annotated[
        Path | None, typer.Option("--fit", metavar="FILE", help="Fit the front to weight updates: a file of tensors.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The updates are those of --fit less those of this file.")
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="NAME", help="A tensor of --fit; by default all that fit. Repeatable."),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="COUNT", parser=count(1, 1_000_000), help="Gradient steps of a fit.")
    ] = 200,
    learning_rate: Annotated[
        float, typer.Option(metavar="NUMBER", help="Adam's largest step of a fit; 1: the gates' first numbers.")
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Search for layouts.

    Factorizations of the width, sets of gates and their orders up to symmetry, under limits; the Pareto front of them
    is planned, printed, and written to DIR, a circuit file for each layout.
    """
    budgets = budgets_by_width(max_parameters, in_features, out_features, model, targets)
    deadline = None if seconds is None else time.monotonic() + seconds
    axis_range, gate_range = range_of(axes, _MOST_AXES, "--axes"), range_of(gates, _MOST_GATES, "--gates")
    axes_of_gates, low_ranks = numbers_of(gate_axes, "--gate-axes"), numbers_of(ranks, "--ranks") if ranks else ()
    if not 0 < learning_rate < math.inf:
        raise wrong_option("--learning-rate", f"{learning_rate:g} is no step: give a number above 0, such as 0.5")
    if cluster is not None and backend == "loky":
        backend = "dask"
    _check_together(cluster, backend, (fit, base, keys), model, resume=resume, force=force)
    with without_numpy():
        from quanta_compiler.compare.figures import Conditions
        from quanta_compiler.predict.calibration import load_calibration
        from quanta_compiler.search.chunks import Settings
        from quanta_compiler.search.run import Request
        from quanta_compiler.search.space import Limits, Space
        from quanta_compiler.search.workers import Workers
        from quanta_compiler.system.machine import usable_cores

    space = Space(
        *budgets[0][:2],
        axes=axis_range,
        gates=gate_range,
        gate_axes=axes_of_gates,
        ranks=low_ranks,
        is_rectangular=not no_rectangular,
        allows_disconnected=allow_disconnected,
        limits=Limits(None, max_flops, max_memory, min_rank, min_mixing),
    )
    request = Request(
        settings=Settings(space, split_names(objectives), alike, candidates, seed),
        folder=output or Path("search" if model is not None else f"search-{in_features}-{out_features}"),
        conditions=Conditions(tokens, "auto", load_calibration()),
        workers=Workers(jobs or usable_cores(), backend, cluster),
        deadline=deadline,
        resume=resume,
        force=force,
        most=most,
        fit=None if fit is None else _fit_options(fit, base, keys or [], space, (steps, learning_rate, seed)),
    )
    outcomes, problems = _all_found(request, budgets, inner=model is not None, is_shown=not as_json)
    if as_json:
        print_json([outcome.to_dict() for outcome in outcomes] if model is not None else outcomes[0].to_dict())
    _fail_for(problems)


def _all_found(
    request: Request, budgets: list[tuple[int, int, int]], *, inner: bool, is_shown: bool
) -> tuple[list[Outcome], list[Diagnostic]]:
    """Search for one width after the other; of the time that is left each gets an equal part.

    Widths that nothing is found for are left out and told; raise SpecError where it is all of them.
    """
    outcomes: list[Outcome] = []
    problems: list[Diagnostic] = []
    for place, one in enumerate(budgets):
        now, end = time.monotonic(), request.deadline
        until = None if end is None else now + max(0.0, end - now) / (len(budgets) - place)
        try:
            outcomes.append(_found(replace(request, deadline=until), *one, inner=inner, is_shown=is_shown))
        except SpecError as error:
            problems += [problem for problem in error.diagnostics if problem not in problems]
    if not outcomes:
        raise SpecError(problems)
    return outcomes, problems


def _fail_for(problems: list[Diagnostic]) -> None:
    """Tell why widths were left out, if any were, and leave the exit status of a failure."""
    if problems:
        tell_diagnostics(problems)
        raise typer.Exit(FAILED)


def _found(request: Request, wide: int, tall: int, most: int, *, inner: bool, is_shown: bool) -> Outcome:
    """Search for one width; `inner`: in a folder of its own within that of the request."""
    space = request.settings.space
    own = replace(space, in_features=wide, out_features=tall, limits=replace(space.limits, parameters=most))
    folder = request.folder / f"{wide}-{tall}" if inner else request.folder
    outcome = _searched(replace(request, settings=replace(request.settings, space=own), folder=folder))
    _tell(outcome)
    if is_shown:
        _print(outcome)
    return outcome


def _check_together(
    cluster: str | None,
    backend: str,
    fitting: tuple[Path | None, Path | None, list[str] | None],
    model: str | None,
    *,
    resume: bool,
    force: bool,
) -> None:
    """Refuse options that contradict each other."""
    if cluster is not None and backend == "threading":
        raise typer.BadParameter("a cluster has the backend dask or ray", param_hint="'--cluster'")
    fit, base, keys = fitting
    if fit is not None and model is not None:
        raise wrong_option("--fit", "updates are of one width: give --in and --out in the place of --model")
    if fit is None and (base is not None or keys):
        raise typer.BadParameter("there is nothing to fit: add --fit W", param_hint="'--base' / '--key'")
    if resume and force:
        raise typer.BadParameter("either go on with --resume, or begin anew with --force", param_hint="'--force'")


def _fit_options(
    file: Path, base: Path | None, keys: list[str], space: Space, numbers: tuple[int, float, int]
) -> FitOptions:
    from quanta_compiler.search.fit import FitOptions, find_updates

    updates = find_updates(file, base, keys, space.in_features, space.out_features)
    if updates.unchanged:
        names, more = clip(updates.unchanged[0]), len(updates.unchanged) - 1
        tell(f"note: not fitted, since it is zero: {names}{f' and {more:,} more' if more else ''}")
    return FitOptions(updates, *numbers)


def _searched(request: Request) -> Outcome:
    from quanta_compiler.search.journal import FILE
    from quanta_compiler.search.run import search as run

    try:
        with progress_bar() as progress:
            return run(request, progress)
    except KeyboardInterrupt:
        if (request.folder / FILE).exists():
            tell("stopped: what is finished is kept, and --resume goes on from there")
        raise


def _tell(outcome: Outcome) -> None:
    is_finished = outcome.exploration.is_finished
    if not is_finished or outcome.unfitted:
        left = "layouts" if not is_finished else f"{outcome.unfitted:,} fits"
        message = f"the time was over before all {left} were done: the results so far are written"
        tell_diagnostics([warning(outcome.request.folder, message, hint="go on with --resume and more --time")])


def _print(outcome: Outcome) -> None:
    if outcome.request.conditions.calibration.remark:
        tell(f"note: {outcome.request.conditions.calibration.remark}")
    from quanta_compiler.search.tables import search_tables

    print_tables(search_tables(outcome))
