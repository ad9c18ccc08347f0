"""Statements as the lines of a function: under headings, with comments that keep to the width."""

from collections.abc import Iterable, Iterator
from textwrap import wrap

from quanta_compiler.emit.computed import Statement
from quanta_compiler.emit.expressions import Expressions
from quanta_compiler.lowering.accounting import owns_result

WIDTH = 110


class Body(Expressions):
    """One program as the bodies of the functions that it becomes."""

    def whole(self, result_dims: str, own_name: str = "w") -> tuple[list[str], str]:
        """Return the lines of a program without a loop, and the name that holds its result with these dimensions.

        What is stored, or a part of something, gets a name of its own. Only `x` may be left in the caller's memory.
        """
        statements = self.statements(self.program.operations)
        name, dims = self.names[self.program.output], self.dims_of[self.program.output]
        if name != "x":
            statements = list(_typed(statements, name))
        lines = list(self.lines(statements))
        code = name if dims == result_dims else f"{name}.view({result_dims})"
        if name != "x" and not owns_result(self.program):
            code += ".clone()"  # nobody may write into what is stored
        if not name.isidentifier():
            return [*lines, f"    {own_name}: torch.Tensor = {code}"], own_name
        if code != name:
            lines.append(f"    {name} = {code}")
        return lines, name

    def lines(self, statements: Iterable[Statement]) -> Iterator[str]:
        """Yield statements under the headings of their steps."""
        waiting: list[tuple[str, str]] = []
        for statement, diary, label in statements:
            waiting.append((statement, diary))
            if label:
                # What only moves data prepares the next product, and stands under its heading.
                shown = label if len(label) < WIDTH else f"{label[:WIDTH]}..."
                axes_of = self.names_of.axes_of
                yield from _section(f"{label}: {axes_of[label]}" if label in axes_of else shown, waiting)
                waiting = []
        yield from _section("", waiting)


def _typed(statements: Iterable[Statement], name: str) -> Iterator[Statement]:
    """Annotate the first use of a name: what a ParameterDict holds has no type, so type checkers are told once."""
    untyped = True
    for statement, diary, label in statements:
        first = untyped and statement.startswith(f"{name} = ")
        untyped = untyped and not first
        yield (statement.replace(" = ", ": torch.Tensor = ", 1) if first else statement), diary, label


def _section(heading: str, statements: Iterable[tuple[str, str]]) -> Iterator[str]:
    if heading:
        yield f"    # {heading}"
    for statement, diary in statements:
        line = f"    {statement}"
        beside = f"{line}  # {diary}" if diary else line
        if len(beside) <= WIDTH + 2:
            yield beside
            continue
        yield from (f"    # {part}" for part in wrap(diary, WIDTH))
        yield from line.split("\n")
