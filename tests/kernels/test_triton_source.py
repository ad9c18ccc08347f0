"""The generated source as text: what it moves, that it is the same every time."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from typing import Any

import pytest
from random_circuits import file_of, random_file

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels
from quanta_compiler.lowering.table import GateTable, lower_table
from quanta_compiler.spec import load_spec

LAYOUTS = ("16x8x8x4", "16x16x16", "8x8x8x8", "16x16x4x4", "16x8x8x5", "16x8x8x8", "8x8x4x4x4")
"""Those of docs/benchmarks.md."""


def kernels_of(file: Any) -> Kernels:
    return Kernels(table_of(file))


def table_of(file: Any) -> GateTable:
    return lower_table(build_circuit(load_spec(file)))


def pairs(layout: str) -> dict[str, Any]:
    return file_of(layout, ["all_pairs"])


def moved(source: str) -> tuple[Counter[str], Counter[str]]:
    """Return how often a kernel loads and stores by each pointer, from its syntax; nothing is inside a loop."""
    tree = ast.parse(source)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While)]
    found: dict[str, Counter[str]] = {"load": Counter(), "store": Counter()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in found:
            names = [one.id for one in ast.walk(node.args[0]) if isinstance(one, ast.Name)]
            pointers = [name for name in names if re.fullmatch(r"[a-z]+\d*", name) and not re.match(r"[nt]\d*$", name)]
            found[node.func.attr][pointers[0]] += 1
    return found["load"], found["store"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_moves_the_input_the_output_and_every_gate_once_a_program(layout: str) -> None:
    kernels = kernels_of(pairs(layout))
    count = len(kernels.table.entries)
    loads, stores = moved(kernels.source(Kernel("forward", 0, count)))
    assert loads == Counter({"x": 1} | {f"w{number}": 1 for number in range(count)})
    assert stores == Counter({"y": 1})


@pytest.mark.parametrize("seed", range(60))
def test_random_circuits_move_no_more(seed: int) -> None:
    """A padded output is two stretches of memory; a gate of few columns is read by them."""
    kernels = kernels_of(random_file(seed))
    table = kernels.table
    loads, stores = moved(kernels.source(Kernel("forward", 0, len(table.entries))))
    assert loads.pop("x") == 1
    assert stores == Counter({"y": 1 + (table.out_features > math.prod(table.sizes[leg] for leg in table.outputs))})
    for name, times in loads.items():
        entry = table.entries[int(name.removeprefix("w"))]
        assert times in (1, entry.columns), "once, or column by column"


def test_stored_backward_moves_every_state_and_gradient_once() -> None:
    kernels = kernels_of(pairs("8x8x4"))
    every = tuple(range(len(kernels.table.entries)))
    loads, stores = moved(kernels.source(Kernel("forward", 0, len(every), every, result=False)))
    assert loads == Counter(["x", *(f"w{number}" for number in every[:-1])])
    assert stores == Counter(f"s{number}" for number in every)
    loads, stores = moved(kernels.source(Kernel("flow", 0, len(every), every)))
    assert loads == Counter(["dy", *(f"w{number}" for number in every)])
    assert stores == Counter(["dx", *(f"e{number}" for number in every)])


@pytest.mark.parametrize(("name", "given", "made"), [("forward", "x", "y"), ("flow", "dy", "dx")])
def test_the_difference_of_an_adapted_layer_reads_its_vector_once(name: str, given: str, made: str) -> None:
    kernels = kernels_of(pairs("8x8x4"))
    count = len(kernels.table.entries)
    loads, stores = moved(kernels.source(Kernel(name, 0, count, minus=True)))
    assert loads == Counter([given, *(f"{letter}{number}" for letter in "wu" for number in range(count))])
    assert stores == Counter([made])


@pytest.mark.parametrize("seed", range(20))
def test_the_same_table_gives_the_same_bytes(seed: int) -> None:
    file = random_file(seed)
    first, second = kernels_of(file), Kernels(table_of({**file, "plan": {"tokens": 3}}))
    count = len(first.table.entries)
    for kernel in (Kernel("forward", 0, count), Kernel("flow", 0, count, tuple(range(count)))):
        assert first.source(kernel) == second.source(kernel)
