"""What an emitted class needs beside its methods to compute rotations: functions of tensors, without `self`.

Those that every circuit has alike stand in `rotation_functions.py`, which is read as text: importing it loads torch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources

from quanta_compiler.emit.body import Body
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.lowering.program import Load, PauliProgram, Program, Rotate


def pauli_names(programs: Sequence[Program]) -> dict[PauliProgram, str]:
    """Return a name for the function of every `pauli` gate that some programs apply or make matrices by."""
    names: dict[PauliProgram, str] = {}

    def take(pauli: PauliProgram) -> None:
        if pauli in names or (pauli.program is None and pauli.halves is None):
            return
        for half in pauli.halves or ():
            take(half)
        plan = pauli.plan
        stem = f"_pauli_{plan.size}" + ("_transposed" if plan.transpose else "")
        taken = list(names.values())
        alike = next(number for number in range(1, len(taken) + 2) if _numbered(stem, number) not in taken)
        names[pauli] = _numbered(stem, alike)

    for program in programs:
        for operation in program.operations:
            if isinstance(operation, Load | Rotate) and operation.pauli is not None:
                take(operation.pauli)
    return names


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}_{number}"


def helper_lines(used: Sequence[str], names: Mapping[PauliProgram, str]) -> Iterator[str]:
    """Yield the functions that expressions call, those that these call, and those of `pauli` gates."""
    wanted = set(used)
    if any(_has(pauli, "ry") for pauli in names):
        wanted.add("_ry")
    if any(_has(pauli, "cz") for pauli in names):
        wanted.add("_cz")
    functions = shared_functions()
    calls = {name: _called(text) for name, text in functions.items()}
    # A function calls only those above it.
    for name in reversed(functions):
        wanted.update(calls[name] if name in wanted else ())
    for name, text in functions.items():
        if name in wanted:
            yield from ["", "@staticmethod", *text.split("\n")]
    for pauli, name in names.items():
        yield from ["", "@staticmethod"]
        yield from _pauli_lines(pauli, name, names)


@cache
def shared_functions() -> dict[str, str]:
    """Return the functions of `rotation_functions.py` as static methods of an emitted class, in their order."""
    text = resources.files("quanta_compiler").joinpath("rotation_functions.py").read_text(encoding="utf-8")
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


def _has(pauli: PauliProgram, kind: str) -> bool:
    return pauli.program is not None and any(_leaf_kind(load) == kind for load in pauli.program.operations)


def _leaf_kind(operation: object) -> str | None:
    if not isinstance(operation, Load) or operation.leaf.gate is None:
        return None
    return operation.leaf.gate.kind


def _pauli_lines(pauli: PauliProgram, name: str, names: Mapping[PauliProgram, str]) -> Iterator[str]:
    plan = pauli.plan
    yield f"def {name}(x: torch.Tensor, {ANGLES}: torch.Tensor) -> torch.Tensor:"
    kept = "" if plan.kept is None else f", {plan.kept} angles a column"
    matrix = "transpose of the matrix" if plan.transpose else "matrix"
    what = f"two-design {matrix}" if pauli.program is not None else f"cosine-sine {matrix}"
    yield f'    """Apply the {what}, {plan.layers} layers{kept}: [n, {plan.size}], [{plan.angles}] -> [n, {plan.size}].'
    yield ""
    yield f"    Planned for {plan.count} vectors."
    yield '    """'
    yield from _circuit_lines(pauli.program) if pauli.program is not None else _sum_lines(pauli, names)


def _circuit_lines(program: Program) -> Iterator[str]:
    yield "    n = x.shape[0]"
    lines, result = Body(program, {}, {}, {}, ANGLES).whole(f"n, {program.out_size}")
    yield from lines
    yield f"    return {result}"


def _sum_lines(pauli: PauliProgram, names: Mapping[PauliProgram, str]) -> Iterator[str]:
    """Write diag(U1, U2) C diag(V1, V2), or its transpose, where the last is applied first and C turns back."""
    assert pauli.halves is not None
    first, second = pauli.halves
    size, turned = first.plan.size, pauli.plan.turned
    parts = [first.plan.angles, second.plan.angles, turned, first.plan.angles, second.plan.angles]
    yield f"    v1, v2, c, u1, u2 = torch.split({ANGLES}, {parts})"
    before, after = ("v1", "v2"), ("u1", "u2")
    if pauli.plan.transpose:
        before, after = after, before
    sides = (f"x[:, :{size}].contiguous()", f"x[:, {size}:].contiguous()")
    yield f"    a, b = {_call(first, sides[0], before[0], names)}, {_call(second, sides[1], before[1], names)}"
    # The angles turn the other way in the transpose.
    yield f"    half = {'-c' if pauli.plan.transpose else 'c'} / 2"
    yield "    cos, sin = torch.cos(half), torch.sin(half)"
    yield f"    head, tail = a[:, :{turned}], b[:, :{turned}]"
    yield f"    a = torch.cat([cos * head - sin * tail, a[:, {turned}:]], dim=1)"
    both = "sin * head + cos * tail"
    yield f"    b = {both}" if turned == second.plan.size else f"    b = torch.cat([{both}, b[:, {turned}:]], dim=1)"
    yield "    del head, tail"
    yield f"    return torch.cat([{_call(first, 'a', after[0], names)}, {_call(second, 'b', after[1], names)}], dim=1)"


def _call(pauli: PauliProgram, x: str, angles: str, names: Mapping[PauliProgram, str]) -> str:
    return f"Circuit.{names[pauli]}({x}, {angles})" if pauli in names else x
