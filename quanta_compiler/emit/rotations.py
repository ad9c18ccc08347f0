"""What an emitted class needs beside its methods to compute rotations: functions of tensors, without `self`.

Those that every circuit has alike stand in `runtime/rotation_functions.py`, which is read as text: importing it loads
torch.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import count

from quanta_compiler.emit.body import Body
from quanta_compiler.emit.computed import Names, method_prefix
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.lowering.program import Call, Function, Join, Maker, Program, Split, Turn

Functions = Mapping[Function | Maker, str]
"""The functions that a class needs for its `pauli` gates, by name, each behind those that it calls."""


def function_names(programs: Sequence[Program]) -> Functions:
    """Return the functions that some programs call."""
    names: dict[Function | Maker, str] = {}
    for function in (function for program in programs for function in program.functions):
        is_needed = function.blocks > 0 if isinstance(function, Maker) else not function.is_identity
        if is_needed and function not in names:
            names[function] = _free_name(f"_{function.name}", names.values())
    return names


def _free_name(stem: str, taken: Iterable[str]) -> str:
    known = set(taken)
    numbered = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    return next(name for name in numbered if name not in known)


def helper_lines(used: Sequence[str], functions: Functions, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the functions that expressions call, those that these call, and those of `pauli` gates.

    `texts` are those of the kinds that bring functions of their own.
    """
    helpers = list(used)
    lines = [line for one in functions if isinstance(one, Maker) for line in _maker_lines(one, functions, helpers)]
    lines += [line for one in functions if isinstance(one, Function) for line in _function_lines(one, functions)]
    methods = dict(_shared_functions())
    for kind, text in texts.items():
        methods |= _methods(text, method_prefix(kind))
    wanted, waiting = set[str](), [name for name in helpers if name in methods]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += re.findall(r"\bCircuit\.(\w+)\(", methods[name])
    for name, text in methods.items():
        if name in wanted:
            yield from ["", "@staticmethod", *text.split("\n")]
    yield from lines


@cache
def _shared_functions() -> dict[str, str]:
    text = resources.files("quanta_compiler").joinpath("runtime/rotation_functions.py").read_text(encoding="utf-8")
    return _methods(text, "_")


def _methods(text: str, prefix: str) -> dict[str, str]:
    """Return the functions of a text as static methods of an emitted class, in their order."""
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    calls = re.compile(rf"(?<![.\w])({'|'.join(node.name for node in nodes)})\(")
    lines = text.split("\n")
    functions: dict[str, str] = {}
    for node in nodes:
        body = "\n".join(lines[node.lineno : node.end_lineno])
        head = lines[node.lineno - 1].replace(f"def {node.name}(", f"def {prefix}{node.name}(", 1)
        functions[f"{prefix}{node.name}"] = head + "\n" + calls.sub(rf"Circuit.{prefix}\1(", body)
    return functions


def _maker_lines(maker: Maker, functions: Functions, helpers: list[str]) -> Iterator[str]:
    yield from ["", "@staticmethod"]
    yield f"def {functions[maker]}({ANGLES}: torch.Tensor) -> list[list[torch.Tensor]]:"
    yield f'    """{maker.about}"""'
    yield from (_blocks_of_halves(maker, functions) if maker.halves else _blocks(maker, helpers))


def _blocks(maker: Maker, helpers: list[str]) -> Iterator[str]:
    yield f"    n = {ANGLES}.shape[0]"
    known = set[str]()
    made = 0
    for place, program in enumerate(maker.programs):
        plan = program.plan
        body = Body(program, Names(like=ANGLES, helpers=helpers))
        body.computed.known = known
        # No name twice, which type checkers would take for another variable.
        body.made = made
        has_stack = plan.batch in plan.output
        lines, result = body.whole(f"n, {program.out_size}" if has_stack else str(program.out_size), f"whole{place}")
        made = body.made
        yield from lines
        yield f"    block{place} = {result}" + ("" if has_stack else ".expand(n, -1)")
    apart = [f"block{place}.unbind()" for place in range(maker.blocks)]
    if len(apart) == 1:
        yield f"    return [[block] for block in {apart[0]}]"
    else:
        yield f"    return [list(made) for made in zip({', '.join(apart)})]"


def _blocks_of_halves(maker: Maker, functions: Functions) -> Iterator[str]:
    angles = [half.angles for half in maker.halves]
    yield f"    v1, v2, c, u1, u2 = torch.split({ANGLES}, {[*angles, maker.pairs, *angles]}, dim=1)"
    made: list[str] = []
    for half, both in zip(maker.halves, ("v1, u1", "v2, u2"), strict=True):
        if half.blocks:
            made.append(functions[half].removeprefix("_"))
            yield f"    {made[-1]} = Circuit.{functions[half]}(torch.cat([{both}]))"
    yield "    half = c / 2"
    yield "    n, cos, sin = len(half), torch.cos(half).unbind(), torch.sin(half).unbind()"
    of_halves = [f"*{name}[{place}]" for place in ("i", "n + i") for name in made]
    yield f"    return [[{', '.join(['cos[i]', 'sin[i]', *of_halves])}] for i in range(n)]"


def _function_lines(function: Function, functions: Functions) -> Iterator[str]:
    yield from ["", "@staticmethod"]
    yield f"def {functions[function]}(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:"
    yield f'    """{function.about}"""'
    is_parted = any(isinstance(operation, Split) for operation in function.program.operations)
    yield from _halves_lines(function.program, functions) if is_parted else _circuit_lines(function.program)


def _circuit_lines(program: Program) -> Iterator[str]:
    yield "    n = x.shape[0]"
    names: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    axes_of: dict[str, str] = {}
    for leaf in program.plan.leaves:
        if leaf.gate is not None:
            name = names[leaf.gate.parameter] = f"blocks[{leaf.gate.position}]"
            shapes[name] = (program.plan.size(leaf.legs),)
            axes_of[leaf.gate.name] = program.plan.in_words((*leaf.gate.per, *leaf.gate.columns))
    lines, result = Body(program, Names(shapes, axes_of, names)).whole(f"n, {program.out_size}")
    yield from lines
    yield f"    return {result}"


def _halves_lines(program: Program, functions: Functions) -> Iterator[str]:
    names: dict[int, str] = {}
    called = {operation.source.value for operation in program.operations if isinstance(operation, Call)}
    yield "    cos, sin = blocks[:2]"
    for operation in program.operations:
        name = names[operation.result] = program.plan.labels[operation.layout[-1]]
        size = program.plan.sizes[operation.layout[-1]]
        match operation:
            case Split(source=source, start=start):
                part = f"{names[source.value]}[:, {f'{start}:' if start else f':{size}'}].contiguous()"
                if operation.result in called:
                    names[operation.result] = part  # nobody else needs it
                else:
                    yield f"    {name} = {part}"
            case Call(source=source, function=function, first=first):
                given = f"{names[source.value]}, blocks[{first}:{first + function.blocks}]"
                yield f"    {name} = Circuit.{functions[function]}({given})"
            case Turn():
                yield from _turn_lines(operation, name, size)
            case Join(halves=halves):
                yield f"    return torch.cat([{', '.join(names[half.value] for half in halves)}], dim=1)"


def _turn_lines(turn: Turn, name: str, size: int) -> Iterator[str]:
    plus, minus = ("-", "+") if turn.back else ("+", "-")
    if turn.side == 0:
        yield f"    head, tail = a[:, :{turn.pairs}], b[:, :{turn.pairs}]"
    code = f"cos * tail {plus} sin * head" if turn.side else f"cos * head {minus} sin * tail"
    yield (
        f"    {name} = {code}"
        if turn.pairs == size
        else f"    {name} = torch.cat([{code}, {name}[:, {turn.pairs}:]], dim=1)"
    )
    if turn.side == 1:
        yield "    del head, tail"
