"""What several texts say in the same words."""

from __future__ import annotations


def resized(before: int, after: int) -> str:
    """Say what happens to a vector of `before` numbers where `after` are wanted; nothing where they are as many."""
    return "" if before == after else f"{'padded' if before < after else 'truncated'} to {after}"
