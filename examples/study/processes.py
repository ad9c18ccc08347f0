"""Work in a process of its own, so that its peak memory is its own and nothing of it stays."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class ProcessError(RuntimeError):
    """A process ended without an answer; its traceback, if it had one, stands on stderr."""


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns.

    Raises:
        ProcessError: it raised an exception, or its process was killed.

    """
    # A fork has everything imported already.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise ProcessError(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    return answer


def _answer(sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send(work(*arguments))
