"""What a search cannot do, told in one sentence with its remedy."""

from __future__ import annotations

from quanta_compiler.diagnostics import Diagnostic, SpecError


def refusal(message: str, hint: str | None = None, source: str = "quanta") -> SpecError:
    """Return the error to raise where a search cannot begin or go on."""
    return SpecError([Diagnostic("error", message, source, hint=hint)])
