"""What every command runs in: no traceback for a user's mistake, and one exit code each."""

import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import typer

from quanta_compiler.diagnostics import SpecError, refusal
from quanta_compiler.kinds.plugins import PluginError
from quanta_compiler.runtime.backends import EngineError
from quanta_compiler.system.extras import missing_extra
from quanta_compiler.system.files import OutputError
from quanta_compiler.system.machine import LimitError
from quanta_compiler.text.console import abandon_stdout, flush, make_encodable, print_json, tell_diagnostics

P = ParamSpec("P")

FAILED = 1
LIMIT_REACHED = 3
INTERRUPTED = 130
PIPE_CLOSED = 141
"""What a shell reports of a program whose reader went away."""


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a command raises for a user's mistake into messages and an exit code, never a traceback.

    A command with `as_json=True` prints the problems as a JSON list of diagnostics to stdout instead.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        make_encodable(sys.stdout)
        try:
            with _quiet():
                command(*args, **kwargs)
            flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            abandon_stdout()
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            explained = _explain(error)
            if explained is None:
                raise
            _tell_failure(explained, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(LIMIT_REACHED if isinstance(error, LimitError | MemoryError) else FAILED) from None

    return run


def _explain(error: Exception) -> SpecError | None:
    """Return the problems of an exception that a user can do something about."""
    if isinstance(error, ImportError):
        missing = missing_extra(error)
        return None if missing is None else refusal("quanta", missing.fact, hint=missing.hint)
    if isinstance(error, OutputError | EngineError | LimitError | MemoryError):
        return refusal("quanta", str(error) or "there is not enough memory")
    if isinstance(error, PluginError):
        return refusal("quanta", error.fact, hint=error.hint)
    return error if isinstance(error, SpecError) else None


def _tell_failure(error: SpecError, *, as_json: bool) -> None:
    try:
        if as_json:
            print_json([diagnostic.to_dict() for diagnostic in error.diagnostics])
            flush()
        else:
            tell_diagnostics(error.diagnostics, error.omitted)
    except (OSError, OutputError):
        # Nobody reads, or the disk is full: the exit code has to say it alone.
        abandon_stdout()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch, and packages that transformers and PEFT look for, have to say of themselves."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def without_numpy() -> Iterator[None]:
    """Import opt_einsum without numpy, which it looks for only to fill a cache that it can fill later as well.

    Nothing of the command line computes with numpy, and importing it takes longer than planning most circuits.
    """
    if "numpy" in sys.modules:
        yield
        return
    sys.modules["numpy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["numpy"]
