"""The front of a search for people."""

from quanta_compiler.diagnostics import escape
from quanta_compiler.search.front import OBJECTIVES
from quanta_compiler.search.run import Found, Outcome
from quanta_compiler.text.tables import FIGURES, Column, Table, in_parts, numbers
from quanta_compiler.text.words import DASH, plural, span_text

_MANY = 10**12
"""From here on people read powers of ten more easily than digits."""


def search_tables(outcome: Outcome, width: int | None = None) -> tuple[Table, ...]:
    """Return what was searched, and the front, in parts where it is wider than `width`."""
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
    front = _front(outcome)
    return summary, *((front,) if width is None else in_parts(front, width))


def _completeness(outcome: Outcome) -> str:
    exploration, most = outcome.exploration, outcome.request.settings.space.gates[1]
    if exploration.is_complete:
        return f"all of at most {plural(most, 'gate')}"
    some = f"all of at most {plural(exploration.complete_gates, 'gate')}"
    if not exploration.is_finished:
        return f"{some}; stopped before the end"
    if not exploration.drawn:
        return f"{some}; there was no room for longer ones"
    whole = "" if exploration.estimate is None else f" of about {_about(exploration.estimate)}"
    return f"{some}, a sample of the longer ones{whole}"


def _about(number: int) -> str:
    """Return two digits of a number, as a power of ten where it has many."""
    return f"{number:.1e}".replace("e+", "e") if number >= _MANY else f"{float(f'{number:.2g}'):,.0f}"


def _front(outcome: Outcome) -> Table:
    has_fits = any(one.fits for one in outcome.found)
    fits = ("error", "LoRA's error", "explained/1,000") if has_fits else ()
    figures = numbers("parameters", "FLOPs/token", "free", "mixing", "rank", "step, ms", *fits)
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
        f"{row.forward_flops_per_token:,.0f}",
        f"{figures.freedom:,}",
        f"{figures.mixing:.2f}",
        span_text(figures.rank_lower, figures.rank_upper),
        DASH if row.step_seconds is None else f"{1000 * row.step_seconds:.2f}",
    )


def _fit_cells(found: Found, is_best: bool) -> tuple[str, ...]:
    error, lora, explained = found.error, found.lora_error, found.explained_per_1000
    if error is None or lora is None or explained is None:
        return (DASH,) * 3
    return f"{'*' if is_best else ''}{error:.4f}", f"{lora:.4f}", f"{100 * explained:.2f}%"


def _best_fits(found: tuple[Found, ...]) -> list[Found]:
    """Return the layouts that fit better than every one with fewer parameters, and than nothing."""
    best: list[Found] = []
    for one in found:
        if one.error is not None and one.error < 1 and all(one.error < (other.error or 0.0) for other in best):
            best.append(one)
    return best
