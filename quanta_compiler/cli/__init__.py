"""The command line: one file a command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from quanta_compiler.cli.app import run

    run()
