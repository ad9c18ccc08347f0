"""`quanta check`: circuit files read, every problem in them printed."""

from typing import Annotated

import typer

from quanta_compiler.cli.command import FAILED, guarded
from quanta_compiler.text.console import print_json, print_result, tell, tell_diagnostics
from quanta_compiler.text.words import plural


@guarded
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Circuit files; `-` is standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print problems and warnings as a JSON list.")] = False,
) -> None:
    """Validate circuit files.

    Every problem is printed with its place, the line itself, and a hint.
    """
    from quanta_compiler.cli.circuit_files import check_file

    checked = []
    for file in dict.fromkeys(files):
        result = check_file(file)
        checked.append(result)
        if not as_json:
            tell_diagnostics(result.diagnostics, result.omitted)
            if result.verdict is not None:
                print_result(result.verdict)
    if as_json:
        print_json([diagnostic.to_dict() for result in checked for diagnostic in result.diagnostics])
    wrong = [result for result in checked if result.verdict is None]
    if not wrong:
        return
    if not as_json:
        shown = sum(problem.severity == "error" for result in wrong for problem in result.diagnostics)
        problems = plural(shown + sum(result.omitted for result in wrong), "problem")
        tell(f"{problems} in {len(wrong)} of {plural(len(checked), 'file')}")
    raise typer.Exit(FAILED)
