"""The front of a search for people."""

from quanta_compiler.diagnostics import escape
from quanta_compiler.search.front import OBJECTIVES
from quanta_compiler.search.run import Found, Outcome
from quanta_compiler.text.quantities import amount_text, figure_text, percent_text, seconds_text
from quanta_compiler.text.tables import FIGURES, Column, Table, numbers
from quanta_compiler.text.words import DASH, plural, span_text


def search_tables(outcome: Outcome) -> tuple[Table, ...]:
    """Return what was searched, and the front."""
    exploration, space = outcome.exploration, outcome.request.settings.space
    names = outcome.request.settings.objectives
    objectives = ", ".join(f"{'more' if OBJECTIVES[name].more_is_better else 'less'} {name}" for name in names)
    rows = (
        ("layouts costed", f"{exploration.seen:,}", _completeness(outcome)),
        ("within the limits", f"{exploration.met:,}", "of those costed"),
        ("on the Pareto front", f"{len(exploration.front):,}", objectives),
        ("written", f"{len(outcome.found):,}", escape(str(outcome.request.folder))),
    )
    summary = Table(f"search: {space.in_features} -> {space.out_features} features", FIGURES, rows)
    return summary, _front(outcome)


def _completeness(outcome: Outcome) -> str:
    exploration, most = outcome.exploration, outcome.request.settings.space.gates[1]
    if exploration.is_complete:
        return f"all of at most {plural(most, 'gate')}"
    some = f"all of at most {plural(exploration.complete_gates, 'gate')}"
    if not exploration.is_finished:
        return f"{some}; stopped before the end"
    if not exploration.drawn:
        return f"{some}; there was no room for longer ones"
    whole = "" if exploration.estimate is None else f" of about {amount_text(exploration.estimate)}"
    return f"{some}, a sample of the longer ones{whole}"


def _front(outcome: Outcome) -> Table:
    has_fits = any(one.fits for one in outcome.found)
    fits = ("error", "LoRA's error", "explained/1,000") if has_fits else ()
    figures = numbers("parameters", "FLOPs/token", "free", "mixing", "rank", "step", *fits)
    best = _best_fits(outcome.found)
    rows = tuple(_row(one) + (_fit_cells(one, one in best) if has_fits else ()) for one in outcome.found)
    title = f"the front, few parameters first; planned for {outcome.request.conditions.tokens:,} tokens"
    return Table(title, (Column("circuit"), Column("gates"), *figures), rows)


def _row(found: Found) -> tuple[str, ...]:
    figures, row = found.candidate.figures, found.row
    return (
        found.document["name"],
        " ".join("-".join(map(str, axes)) + (f":{rank}" if rank else "") for axes, rank in found.candidate.gates),
        f"{figures.parameters:,}",
        amount_text(row.forward_flops_per_token),
        f"{figures.freedom:,}",
        figure_text(figures.mixing),
        span_text(figures.rank_lower, figures.rank_upper),
        DASH if row.step_seconds is None else seconds_text(row.step_seconds),
    )


def _fit_cells(found: Found, is_best: bool) -> tuple[str, ...]:
    error, lora, explained = found.error, found.lora_error, found.explained_per_1000
    if error is None or lora is None or explained is None:
        return (DASH,) * 3
    return f"{'*' if is_best else ''}{figure_text(error)}", figure_text(lora), percent_text(100 * explained)


def _best_fits(found: tuple[Found, ...]) -> list[Found]:
    """Return the layouts that fit better than every one with fewer parameters, and than nothing."""
    best: list[Found] = []
    for one in found:
        if one.error is not None and one.error < 1 and all(one.error < (other.error or 0.0) for other in best):
            best.append(one)
    return best
