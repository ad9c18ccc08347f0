"""Why a search has found nothing: which limit no layout meets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.report.terminal import plural
from quanta_compiler.search.chunks import Settings, branches
from quanta_compiler.search.explore import explore
from quanta_compiler.search.front import Candidate
from quanta_compiler.search.problems import refusal
from quanta_compiler.search.space import Limits, Space
from quanta_compiler.search.workers import Team, Workers

_CANDIDATES = 20_000
"""The extremes are among the layouts with few gates, which are looked at first."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit by its option, and the figure that it is on."""

    field: str
    option: str
    objective: str
    figure: str
    has: str
    needs: str

    @property
    def is_from_below(self) -> bool:
        """Say whether a layout must reach the limit, not stay within it."""
        return self.option.startswith("--min")


_LIMITS = (
    _Limit("parameters", "--max-parameters", "parameters", "parameters", "at most {} parameters", "needs {}"),
    _Limit("flops_per_token", "--max-flops", "flops", "flops_per_token", "at most {} FLOPs per token", "needs {}"),
    _Limit(
        "saved_bytes_per_token",
        "--max-memory",
        "memory",
        "saved_bytes_per_token",
        "at most {} bytes per token kept for backward",
        "needs {}",
    ),
    _Limit("rank", "--min-rank", "rank", "rank_lower", "a rank of at least {}", "has {}"),
    _Limit("mixing", "--min-mixing", "mixing", "mixing", "a mixing of at least {}", "has {}"),
)


def nothing_found(settings: Settings) -> SpecError:
    """Return the sentence on why no layout of a space meets its limits."""
    space = settings.space
    widths = f"{space.in_features} -> {space.out_features}"
    free = replace(space, limits=Limits())
    if not branches(free):
        return refusal(f"there is no layout of {widths} with {_structure(space)}", "allow other numbers of --axes")
    if _best(settings, free, "parameters") is None:
        message = (
            f"no circuit of {widths} with at most {plural(space.gates[1], 'gate')} acts on every axis of its layout"
        )
        return refusal(message, "allow more --gates, other --gate-axes, or --allow-disconnected")
    limits = [limit for limit in _LIMITS if getattr(space.limits, limit.field) is not None]
    for limit in limits:
        best = _best(settings, free, limit.objective)
        assert best is not None
        wanted, found = getattr(space.limits, limit.field), getattr(best.figures, limit.figure)
        if found < wanted if limit.is_from_below else found > wanted:
            extreme = "largest" if limit.is_from_below else "smallest"
            message = f"no layout of {widths} has {limit.has.format(f'{wanted:,}')}: the {extreme}"
            return refusal(f"{message} {limit.needs.format(f'{found:,}')} ({best.layout})", f"loosen {limit.option}")
    return _together(settings, widths, limits)


def _together(settings: Settings, widths: str, limits: list[_Limit]) -> SpecError:
    """Return the sentence for limits that can be met, but not all at once."""
    space = settings.space
    for limit in limits:
        best = _best(settings, replace(space, limits=replace(space.limits, **{limit.field: None})), limit.objective)
        if best is not None:
            wanted, found = getattr(space.limits, limit.field), getattr(best.figures, limit.figure)
            others = " and ".join(other.option for other in limits if other is not limit)
            message = (
                f"no layout of {widths} has {limit.has.format(f'{wanted:,}')} within {others}: "
                f"the nearest {limit.needs.format(f'{found:,}')} ({best.layout})"
            )
            return refusal(message, "each limit can be met alone: loosen one of them")
    options = ", ".join(limit.option for limit in limits)
    return refusal(f"no layout of {widths} meets {options} together", "each can be met alone: loosen two of them")


def _best(settings: Settings, space: Space, objective: str) -> Candidate | None:
    """Return the layout of a space that is best in one figure."""
    narrowed = Settings(space, (objective,), candidates=_CANDIDATES, seed=settings.seed)
    return next(iter(explore(narrowed, Team(None, Workers())).front), None)


def _structure(space: Space) -> str:
    fewest, most = space.axes
    axes = str(fewest) if fewest == most else f"{fewest} to {most}"
    return f"{axes} axes for gates on {' or '.join(map(str, space.gate_axes))} of them"
