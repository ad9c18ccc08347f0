"""The command line in this process, for tests that look at what it prints."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from quanta_compiler.cli.app import app


def quanta(*arguments: str, stdin: str | None = None) -> Result:
    """Run `quanta` with these arguments; what is not an exit is raised."""
    result = CliRunner().invoke(app, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
