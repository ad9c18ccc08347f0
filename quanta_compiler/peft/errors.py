"""What can be wrong with an adapter, told with the layer, the fact and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 10


class AdapterError(ValueError):
    """An adapter does not fit a model, or its saved files are damaged; no weight has been changed."""


def listed(problems: Sequence[str]) -> str:
    """Return the first problems, one per line, and how many more there are."""
    shown = list(problems[:_SHOWN])
    if len(problems) > _SHOWN:
        shown.append(f"and {len(problems) - _SHOWN} more")
    return "\n".join(shown)
