"""What can be wrong with an adapter, told with the layer, the fact and the remedy."""

from collections.abc import Sequence
from typing import NamedTuple

_SHOWN = 10


class AdapterError(ValueError):
    """An adapter does not fit a model, cannot do what is asked, or its saved files are damaged; nothing was changed."""


class Problem(NamedTuple):
    """One thing that is wrong: which layer and what, and what to do about it."""

    text: str
    hint: str


def raise_problems(title: str, problems: Sequence[Problem]) -> None:
    """Raise AdapterError with the first problems, one per line, and what to do about them."""
    if not problems:
        return
    lines = [title, *(problem.text for problem in problems[:_SHOWN])]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    # Each remedy once, in the order of the problems.
    lines += [f"hint: {hint}" for hint in dict.fromkeys(problem.hint for problem in problems)]
    raise AdapterError("\n".join(lines))
