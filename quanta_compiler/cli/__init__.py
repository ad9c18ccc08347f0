"""The command line: one file a command."""


def main() -> None:
    """Run the command line."""
    from quanta_compiler.cli.app import run

    run()
