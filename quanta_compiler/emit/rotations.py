"""What an emitted class needs beside its methods to compute rotations: functions of tensors, without `self`.

Those that every circuit has alike stand in `runtime/rotation_functions.py`, which is read as text: importing it loads
torch.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import accumulate, count

from quanta_compiler.emit.body import Body
from quanta_compiler.emit.computed import Names
from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.lowering.program import BlocksProgram, Load, PauliProgram, Program, Rotate
from quanta_compiler.planner.plan import BlocksPlan, Leaf


@dataclass(frozen=True, slots=True)
class PauliFunctions:
    """The names of the functions that a class needs for its `pauli` gates."""

    applying: Mapping[PauliProgram, str]
    """What applies a rotation to vectors, from the blocks of one gate."""
    making: Mapping[BlocksPlan, str]
    """What makes the blocks of a stack of gates that are alike."""
    programs: tuple[BlocksProgram, ...]


def pauli_functions(programs: Sequence[Program]) -> PauliFunctions:
    """Return the functions of all `pauli` gates that some programs apply or make matrices by."""
    applying: dict[PauliProgram, str] = {}
    making: dict[BlocksPlan, BlocksProgram] = {}

    def take(pauli: PauliProgram) -> None:
        if pauli.program is None and pauli.halves is None:
            return
        for half in pauli.halves or ():
            take(half)
        stem = f"_pauli_{pauli.plan.size}" + ("_transposed" if pauli.plan.transpose else "")
        # By what is executed: a half has no blocks of its own.
        applying.setdefault(replace(pauli, blocks=None), _free_name(stem, applying.values()))

    def take_blocks(blocks: BlocksProgram) -> None:
        for half in blocks.halves or ():
            take_blocks(half)
        if blocks.plan.tensors:
            making.setdefault(blocks.plan, blocks)

    for program in programs:
        for operation in program.operations:
            if isinstance(operation, Load | Rotate) and operation.pauli is not None:
                take(operation.pauli)
                if operation.pauli.blocks is not None:
                    take_blocks(operation.pauli.blocks)
    names: dict[BlocksPlan, str] = {}
    for plan in making:
        names[plan] = _free_name(f"_blocks_{plan.size}", names.values())
    return PauliFunctions(applying, names, tuple(making.values()))


def _free_name(stem: str, taken: Iterable[str]) -> str:
    known = set(taken)
    numbered = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    return next(name for name in numbered if name not in known)


def helper_lines(used: Sequence[str], functions: PauliFunctions) -> Iterator[str]:
    """Yield the functions that expressions call, those that these call, and those of `pauli` gates."""
    helpers = list(used)
    lines = [line for blocks in functions.programs for line in _blocks_lines(blocks, functions, helpers)]
    for pauli, name in functions.applying.items():
        lines += _pauli_lines(pauli, name, functions)
    shared = shared_functions()
    wanted = set(helpers)
    # A function calls only those above it.
    for name in reversed(shared):
        wanted.update(_called(shared[name]) if name in wanted else ())
    for name, text in shared.items():
        if name in wanted:
            yield from ["", "@staticmethod", *text.split("\n")]
    yield from lines


@cache
def shared_functions() -> dict[str, str]:
    """Return the functions of `rotation_functions.py` as static methods of an emitted class, in their order."""
    text = resources.files("quanta_compiler").joinpath("runtime/rotation_functions.py").read_text(encoding="utf-8")
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    calls = re.compile(rf"(?<![.\w])({'|'.join(node.name for node in nodes)})\(")
    lines = text.split("\n")
    functions: dict[str, str] = {}
    for node in nodes:
        body = "\n".join(lines[node.lineno : node.end_lineno])
        head = lines[node.lineno - 1].replace(f"def {node.name}(", f"def _{node.name}(", 1)
        functions[f"_{node.name}"] = head + "\n" + calls.sub(r"Circuit._\1(", body)
    return functions


def _called(text: str) -> set[str]:
    return set(re.findall(r"\bCircuit\.(\w+)\(", text))


def _blocks_lines(blocks: BlocksProgram, functions: PauliFunctions, helpers: list[str]) -> Iterator[str]:
    plan = blocks.plan
    yield from ["", "@staticmethod"]
    yield f"def {functions.making[blocks.plan]}({ANGLES}: torch.Tensor) -> list[list[torch.Tensor]]:"
    kept = "" if plan.kept is None else f", {plan.kept} angles a column"
    layers = "1 layer" if plan.layers == 1 else f"{plan.layers} layers"
    what = "cosines, sines and blocks" if blocks.halves is not None else "blocks"
    side = f"{plan.size} x {plan.size}"
    yield f'    """Return the {what} of every matrix {side}, {layers}{kept}, of a stack: [n, {plan.angles}]."""'
    yield from (_sum_blocks(blocks, functions) if blocks.halves is not None else _two_design_blocks(blocks, helpers))


def _two_design_blocks(blocks: BlocksProgram, helpers: list[str]) -> Iterator[str]:
    yield f"    n = {ANGLES}.shape[0]"
    known: dict[str, str] = {}
    made = 0
    for place, program in enumerate(blocks.programs):
        plan = program.plan
        body = Body(program, {}, {}, Names(like=ANGLES))
        body.expressions.computed.helpers, body.expressions.computed.known = helpers, known
        # No name twice, which type checkers would take for another variable.
        body.expressions.made = made
        has_stack = plan.batch in plan.output
        lines, result = body.whole(f"n, {program.out_size}" if has_stack else str(program.out_size), f"whole{place}")
        made = body.expressions.made
        yield from lines
        yield f"    block{place} = {result}" + ("" if has_stack else ".expand(n, -1)")
    apart = [f"block{place}.unbind()" for place in range(len(blocks.programs))]
    if len(apart) == 1:
        yield f"    return [[block] for block in {apart[0]}]"
    else:
        yield f"    return [list(made) for made in zip({', '.join(apart)})]"


def _sum_blocks(blocks: BlocksProgram, functions: PauliFunctions) -> Iterator[str]:
    assert blocks.halves is not None
    first, second = blocks.halves
    parts = [first.plan.angles, second.plan.angles, blocks.plan.turned, first.plan.angles, second.plan.angles]
    yield f"    v1, v2, c, u1, u2 = torch.split({ANGLES}, {parts}, dim=1)"
    made: list[str] = []
    for half, halves in zip((first, second), ("v1, u1", "v2, u2"), strict=True):
        if half.plan.tensors:
            name = functions.making[half.plan]
            made.append(name.removeprefix("_"))
            yield f"    {made[-1]} = Circuit.{name}(torch.cat([{halves}]))"
    yield "    half = c / 2"
    yield "    n, cos, sin = len(half), torch.cos(half).unbind(), torch.sin(half).unbind()"
    of_halves = [f"*{name}[{place}]" for place in ("i", "n + i") for name in made]
    yield f"    return [[{', '.join(['cos[i]', 'sin[i]', *of_halves])}] for i in range(n)]"


def _tensors_of_a_gate(pauli: PauliProgram) -> int:
    """Return how many tensors a matrix is applied by: those of a sum's halves are there for V and for U."""
    if pauli.halves is not None:
        return 2 + 2 * sum(map(_tensors_of_a_gate, pauli.halves))
    return 0 if pauli.plan.circuit is None else len(pauli.plan.circuit.gates)


def _pauli_lines(pauli: PauliProgram, name: str, functions: PauliFunctions) -> Iterator[str]:
    plan = pauli.plan
    yield from ["", "@staticmethod"]
    yield f"def {name}(x: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:"
    matrix = "the transpose of a matrix" if plan.transpose else "a matrix"
    yield f'    """Apply {matrix} {plan.size} x {plan.size}, planned for {plan.count} vectors: [n, {plan.size}]."""'
    yield from _circuit_lines(pauli.program) if pauli.program is not None else _sum_lines(pauli, functions)


def _circuit_lines(program: Program) -> Iterator[str]:
    yield "    n = x.shape[0]"
    leaves = [operation.leaf for operation in program.operations if isinstance(operation, Load)]
    gates = [leaf.gate for leaf in leaves if leaf.gate is not None]
    names = {gate.parameter: f"blocks[{gate.position}]" for gate in gates}
    shapes = {f"blocks[{leaf.gate.position}]": (_numbers(program, leaf),) for leaf in leaves if leaf.gate is not None}
    axes_of = {gate.name: _acts_on(program, gate) for gate in gates}
    lines, result = Body(program, shapes, axes_of, Names(stored=names)).whole(f"n, {program.out_size}")
    yield from lines
    yield f"    return {result}"


def _acts_on(program: Program, gate: Gate) -> str:
    return program.plan.in_words((*gate.per, *gate.columns))


def _numbers(program: Program, leaf: Leaf) -> int:
    return math.prod(program.plan.sizes[leg] for leg in leaf.legs)


def _sum_lines(pauli: PauliProgram, functions: PauliFunctions) -> Iterator[str]:
    """Write diag(U1, U2) C diag(V1, V2), or its transpose, where the last is applied first and C turns back."""
    assert pauli.halves is not None
    first, second = pauli.halves
    size, turned = first.plan.size, pauli.plan.turned
    counts = list(map(_tensors_of_a_gate, pauli.halves))
    # Behind cosines and sines those of V1 and V2, then those of U1 and U2.
    firsts = list(accumulate([*counts, *counts], initial=2))
    before, after = (2, 0) if pauli.plan.transpose else (0, 2)

    def call(half: PauliProgram, x: str, side: int) -> str:
        function = functions.applying.get(half)
        start, end = firsts[side + (half is second) :][:2]
        return x if function is None else f"Circuit.{function}({x}, blocks[{start}:{end}])"

    yield "    cos, sin = blocks[:2]"
    yield f"    a = {call(first, f'x[:, :{size}].contiguous()', before)}"
    yield f"    b = {call(second, f'x[:, {size}:].contiguous()', before)}"
    # The angles turn the other way in the transpose.
    plus, minus = ("-", "+") if pauli.plan.transpose else ("+", "-")
    yield f"    head, tail = a[:, :{turned}], b[:, :{turned}]"
    yield f"    a = torch.cat([cos * head {minus} sin * tail, a[:, {turned}:]], dim=1)"
    both = f"cos * tail {plus} sin * head"
    yield f"    b = {both}" if turned == second.plan.size else f"    b = torch.cat([{both}, b[:, {turned}:]], dim=1)"
    yield "    del head, tail"
    yield f"    a = {call(first, 'a', after)}"
    if second in functions.applying:
        yield f"    b = {call(second, 'b', after)}"
    yield "    return torch.cat([a, b], dim=1)"
