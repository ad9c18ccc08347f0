"""How far something long is: a bar on stderr where a person looks at it, nothing elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from quanta_compiler.text.console import is_terminal


class Progress:
    """Takes how far something is; this one shows it to nobody."""

    def begin(self, what: str, total: int | None = None) -> None:
        """Name what is done next, and how many there are of it where that is known."""

    def advance(self, remark: str = "") -> None:
        """Count one of them."""


@contextmanager
def progress_bar(first: str = "preparing", *, redraws_alone: bool = True) -> Iterator[Progress]:
    """Show a bar that begins with `first`; with `redraws_alone` false it takes no time but in `advance`."""
    if not is_terminal(sys.stderr):
        yield Progress()
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[remark]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=redraws_alone) as shown:
        task = shown.add_task(first, total=None, remark="")

        class Bar(Progress):
            def begin(self, what: str, total: int | None = None) -> None:
                shown.reset(task, description=what, total=total)

            def advance(self, remark: str = "") -> None:
                shown.update(task, advance=1, remark=remark, refresh=not redraws_alone)

        yield Bar()
