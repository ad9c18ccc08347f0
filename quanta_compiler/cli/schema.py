"""`quanta schema`: the JSON Schema of circuit files, printed."""

from quanta_compiler.cli.command import guarded
from quanta_compiler.text.console import print_result


@guarded
def schema() -> None:
    """Print the JSON Schema.

    An editor with the YAML language server completes and checks circuit files by it.
    """
    from quanta_compiler.spec.schema import schema_text

    print_result(schema_text())
