"""Why a search has found nothing: which limit no layout meets, said of all layouts only where all were looked at."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from quanta_compiler.diagnostics import SpecError, refusal
from quanta_compiler.search.chunks import Settings, branches
from quanta_compiler.search.explore import Exploration
from quanta_compiler.search.front import OBJECTIVES
from quanta_compiler.search.space import Limits, Space
from quanta_compiler.text.words import plural

_CANDIDATES = 50_000
"""At most this many layouts are looked at to explain a limit: less than a search, but not all."""

Explore = Callable[[Settings], Exploration]
"""How spaces with other limits are looked at."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit by its option, the objective that it is on, and what a layout within it has."""

    field: str
    option: str
    objective: str
    has: str

    @property
    def is_from_below(self) -> bool:
        """Say whether a layout must reach the limit, not stay within it."""
        return OBJECTIVES[self.objective].more_is_better


_LIMITS = (
    _Limit("parameters", "--max-parameters", "parameters", "at most {:,} parameters"),
    _Limit("flops_per_token", "--max-flops", "flops", "at most {:,} FLOPs per token"),
    _Limit("saved_bytes_per_token", "--max-memory", "memory", "at most {:,} bytes per token kept for backward"),
    _Limit("rank", "--min-rank", "rank", "a rank of at least {:,}"),
    _Limit("mixing", "--min-mixing", "mixing", "a mixing of at least {:,}"),
)


def refuse_impossible(settings: Settings) -> None:
    """Raise SpecError for a limit that no layout can meet whatever it is, before any is looked at."""
    space = settings.space
    most = min(space.in_features, space.out_features)
    if space.limits.rank is not None and space.limits.rank > most:
        message = (
            f"no layout of {widths_text(space)} has a rank of at least {space.limits.rank:,}: the largest has {most:,}"
        )
        raise refusal("quanta", message, hint="loosen --min-rank")


def nothing_found(settings: Settings, seen: Exploration, explore: Explore) -> SpecError:
    """Return the sentence on why no layout of a space meets its limits; `seen` is what the search has looked at."""
    space = settings.space
    free = replace(space, limits=Limits())
    if not branches(free):
        fewest, most = space.axes
        axes = str(fewest) if fewest == most else f"{fewest} to {most}"
        gates = f"gates on {' or '.join(map(str, space.gate_axes))} of them"
        message = f"there is no layout of {widths_text(space)} with {axes} axes for {gates}"
        return refusal("quanta", message, hint="allow other numbers of --axes")
    whole = _explored(settings, free, "parameters", explore)
    if whole.is_complete and not whole.front:
        gates = plural(space.gates[1], "gate")
        message = f"no circuit of {widths_text(space)} with at most {gates} acts on every axis of its layout"
        return refusal("quanta", message, hint="allow more --gates, other --gate-axes, or --allow-disconnected")
    limits = [limit for limit in _LIMITS if getattr(space.limits, limit.field) is not None]
    for limit in limits:
        alone = replace(space, limits=Limits(**{limit.field: getattr(space.limits, limit.field)}))
        exploration = _explored(settings, alone, limit.objective, explore)
        if exploration.is_complete and not exploration.front:
            near = _nearest(settings, alone, limit, explore, "largest" if limit.is_from_below else "smallest")
            message = f"no layout of {widths_text(space)} {_has(space, limit)}{near}"
            return refusal("quanta", message, hint=f"loosen {limit.option}")
    return _together(settings, seen, limits, explore)


def _together(settings: Settings, seen: Exploration, limits: list[_Limit], explore: Explore) -> SpecError:
    """Return the sentence for limits that no layout is seen to meet all at once."""
    space = settings.space
    subject = f"no layout of {widths_text(space)}"
    hint = "loosen one of them" if len(limits) > 1 else f"loosen {limits[0].option}"
    if not seen.is_complete:
        subject = f"none of the {seen.seen:,} layouts of {widths_text(space)} looked at"
        hint += ", or look at more with --candidates"
    for limit in limits:
        near = _nearest(settings, space, limit, explore, "nearest")
        if near:
            others = " and ".join(other.option for other in limits if other is not limit)
            within = f" within {others}" if others else ""
            return refusal("quanta", f"{subject} {_has(space, limit)}{within}{near}", hint=hint)
    return refusal("quanta", f"{subject} meets {', '.join(limit.option for limit in limits)} together", hint=hint)


def _nearest(settings: Settings, space: Space, limit: _Limit, explore: Explore, extreme: str) -> str:
    """Return the end of a sentence: what comes nearest to one limit, all others being met; nothing where none does."""
    wanted = getattr(space.limits, limit.field)
    # A limit on costs is doubled first: what is near has few gates, and less is in its way.
    bounds = [None] if limit.is_from_below else [2 * wanted, 4 * wanted, None]
    for bound in bounds:
        exploration = _explored(settings, _limited(space, limit, bound), limit.objective, explore)
        if exploration.front:
            best = exploration.front[0]
            value = getattr(best.figures, OBJECTIVES[limit.objective].key)
            is_exact = exploration.is_complete
            if not is_exact and not limit.is_from_below:
                less = _explored(settings, _limited(space, limit, value - 1), limit.objective, explore)
                is_exact = less.is_complete and not less.front
            has = "has" if limit.is_from_below else "needs"
            return f": the {extreme}{'' if is_exact else ' that was found'} {has} {value:,} ({best.layout})"
    return ""


def _explored(settings: Settings, space: Space, objective: str, explore: Explore) -> Exploration:
    return explore(Settings(space, (objective,), candidates=min(_CANDIDATES, settings.candidates), seed=settings.seed))


def _limited(space: Space, limit: _Limit, bound: Any) -> Space:
    return replace(space, limits=replace(space.limits, **{limit.field: bound}))


def _has(space: Space, limit: _Limit) -> str:
    return f"has {limit.has.format(getattr(space.limits, limit.field))}"


def widths_text(space: Space) -> str:
    """Return `4096 -> 1024`."""
    return f"{space.in_features} -> {space.out_features}"
