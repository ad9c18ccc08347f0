"""Shapes that random circuits do not have: long rows and columns, many blocks, wide states, many gates."""

from __future__ import annotations

import copy
import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_compilers import needs_a_compiler, small_library
from fused_circuits import assert_close, executable_of, gradients, on_both, vectors
from random_circuits import error, file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engines.cpu.engine import KernelTable
from quanta_compiler.lowering.table import lower_table

EXACT = 1e-11


def matrix(rows: int, columns: int, *others: int, **keys: Any) -> dict[str, Any]:
    """Return a circuit of one matrix, on the first axis, beside axes that it leaves alone."""
    return file_of([columns, *others], [{"axes": [0], "to": [rows], **keys}])


SHAPES = {
    "one row": matrix(1, 4096),
    "one column": matrix(4096, 1),
    "one row, many times": matrix(1, 300, 7),
    "one column, many times": matrix(300, 1, 7),
    "tall": matrix(300, 7, 3),
    "flat": matrix(7, 300, 3),
    "primes": matrix(131, 127, 13),
    **{f"{rows} x {rows + 1}": matrix(rows, rows + 1, 5) for rows in range(1, 34)},
    **{f"17 x {columns}": matrix(17, columns, 9) for columns in (1, 2, 3, 4, 5, 8, 47, 48, 49, 64)},
    **{f"{rest} times": matrix(9, 10, rest) for rest in (2, 3, 4, 7, 8, 9, 16, 17, 31)},
    "a wide diagonal": matrix(4096, 4096, kind="diagonal") | {"gates": [{"axes": [0], "kind": "diagonal"}]},
    "a diagonal beside": file_of("61x7x5", [{"axes": [0, 2], "kind": "diagonal"}, {"axes": [1], "kind": "diagonal"}]),
    "hundreds of blocks": file_of("7x300x2", [{"axes": [0], "per": [1], "to": [5]}, {"axes": [2], "per": [1]}]),
    "blocks of one number": file_of("6x50x7", [{"axes": [0], "per": [1, 2], "to": []}])
    | {"gates": [{"axes": [0], "per": [1, 2], "to": {"a": 1}}]},
    "a thin bond": file_of("31x37", [{"axes": [0, 1], "kind": "lowrank", "rank": 1}]),
    "bonds per block": file_of("11x13x40", [{"axes": [0, 1], "kind": "lowrank", "rank": 3, "per": [2]}]),
    "cut and padded": file_of("40x25", [{"axes": [0, 1], "kind": "slice", "to": {"a": 7, "b": 200}}, ["b"]]),
    "truncated far": file_of("32x32", [[0, 1]], in_features=5, out_features=3),
    "padded far": file_of("3x3", [[0, 1]], in_features=1000, out_features=999),
}


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_those_of_the_emitted_module(name: str) -> None:
    circuit = compile_circuit(SHAPES[name])
    plain, fused = on_both(circuit)
    plain32, fused32 = on_both(circuit, torch.float32)
    exactly = copy.deepcopy(plain32).double()
    for tokens in (1, 5, 12, 27):
        x = vectors(circuit, tokens)
        assert error(fused(x), plain(x)) < EXACT
        assert_close(gradients(fused, x), gradients(plain, x), EXACT)
        x = x.float()
        assert error(fused32(x), exactly(x.double())) < 1e-5
        expected = gradients(exactly, x.double())
        assert_close(gradients(fused32, x), {key: value.float() for key, value in expected.items()}, 1e-5)


# States that are too many to be kept at once


def deep(gates: int, width: int = 16) -> dict[str, Any]:
    """Return gates on four axes in turn, that keep the norm; one in five changes no number, or every one by itself."""
    kinds: list[dict[str, Any]] = [
        {"kind": "dense"},
        {"kind": "dense"},
        {"kind": "diagonal"},
        {"kind": "dense"},
        {"kind": "slice"},
    ]
    listed = [{"axes": [place % 4], **kinds[place % 5]} for place in range(gates)]
    return file_of([width] * 4, listed, init="orthogonal")


@pytest.mark.parametrize(
    ("gates", "tokens"),
    [
        (16, 16),
        pytest.param(17, 16, marks=pytest.mark.slow),
        (21, 19),
        pytest.param(30, 16, marks=pytest.mark.slow),
    ],
)
def test_states_beyond_the_limit_are_computed_in_segments(gates: int, tokens: int) -> None:
    """A state of a tile is 4 MiB here; of 64 MiB in all the segments are as long as there are of them."""
    circuit = compile_circuit(deep(gates))
    plain, fused = (circuit.module(backend=backend, seed=1) for backend in ("torch", "fused"))
    executable_of(fused)
    x = vectors(circuit, tokens, dtype=torch.float32)
    found, expected = gradients(fused, x), gradients(plain, x)
    assert_close(found, expected, 1e-5)
    # Not even the last bit depends on what is kept.
    frozen = copy.deepcopy(fused)
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_(name == "gates.g1")
    for of_x in (False, True):
        few = gradients(frozen, x, of_x=of_x)
        assert all(torch.equal(gradient, found[name]) for name, gradient in few.items())


# Memory

WIDE = """
import resource, torch
from quanta_compiler.driver import compile_circuit
torch.set_num_threads(1)
gates = [{"axes": [axis]} for axis in range(4)]
circuit = compile_circuit({"version": 1, "name": "wide", "layout": "32x32x16x16", "gates": gates})
fused = circuit.module(backend="fused").requires_grad_(False)
x = torch.randn(16, 2**18)
expected = fused(x)
fused(x[:1])
# The result takes 16 MiB, each of a tile's two states 16, one token's a sixteenth of that.
for spare in (100, 32):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + spare * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    print("equal" if torch.equal(fused(x), expected) else "different")
"""


DEEP = (
    WIDE.split("expected =", maxsplit=1)[0].replace(".requires_grad_(False)", "")
    + """
def gradients():
    return torch.autograd.grad(fused(x), list(fused.parameters()), x)

expected = gradients()
# The result takes 16 MiB; backward keeps four states of 16 and has two gradients of 16, or one state fewer in segments.
for spare in (140, 104):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + spare * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    print("equal" if all(map(torch.equal, gradients(), expected)) else "different")
"""
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits and reads its own memory as Linux does")
@pytest.mark.parametrize("code", [WIDE, DEEP], ids=["forward", "backward"])
def test_a_tile_that_does_not_fit_into_memory_is_made_smaller(code: str) -> None:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.split()) == (0, ["equal", "equal"]), result.stderr[-2000:]


@needs_a_compiler
def test_no_memory_at_all_is_an_error_that_says_so(tmp_path: Path) -> None:
    functions = (f'extern "C" int quanta_{name}() {{ return 1; }}' for name in ("forward", "backward"))
    (tmp_path / "empty.so").write_bytes(small_library("\n".join(functions)))
    library = ctypes.CDLL(str(tmp_path / "empty.so"))
    kernel = KernelTable(library, lower_table(compile_circuit(file_of("2x3", [[0, 1]])).circuit))
    x, gate = torch.zeros(2, 6), torch.zeros(6, 6)
    with pytest.raises(MemoryError, match=r"^there is no memory for one tile of this circuit's states$"):
        kernel.forward(x, [gate])
    with pytest.raises(MemoryError, match=r"^there is no memory for one tile of this circuit's states$"):
        kernel.backward(x, x, [gate], [True, True])
