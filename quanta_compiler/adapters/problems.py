"""What is wrong with a file of tensors: the place, the fact and the remedy, as errors about circuit files are told."""

from __future__ import annotations

from pathlib import Path

from quanta_compiler.diagnostics import Diagnostic, SpecError, clip, quote

_SHOWN = 5


def problem(source: Path | str, message: str, *, place: str = "", hint: str | None = None) -> Diagnostic:
    """Return one problem: `source` is the file or folder as the user named it, `place` a layer or a key in it."""
    return Diagnostic("error", message, str(source), clip(place, 160), hint=hint)


def warning(source: Path | str, message: str, *, place: str = "", hint: str | None = None) -> Diagnostic:
    """Return what is allowed, but worth knowing."""
    return Diagnostic("warning", message, str(source), clip(place, 160), hint=hint)


def refusal(source: Path | str, message: str, *, place: str = "", hint: str | None = None) -> SpecError:
    """Return the error to raise where one problem is all there is to say."""
    return SpecError([problem(source, message, place=place, hint=hint)])


def some_of(words: list[str]) -> str:
    """Return the first few words, quoted, and how many more there are."""
    shown = ", ".join(quote(word) for word in words[:_SHOWN])
    return shown if len(words) <= _SHOWN else f"{shown} and {len(words) - _SHOWN} more"
