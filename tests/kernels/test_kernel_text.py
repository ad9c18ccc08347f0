"""`quanta expand --stage kernel`: the Triton source that runs, for readers, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.triton.forms import is_cheaper_in_segments, starts
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Tiling
from quanta_compiler.kernels.engines.triton.plans import Refusal, segments
from quanta_compiler.kernels.engines.triton.source import HEAD
from quanta_compiler.kernels.engines.triton.text import kernel_text
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.spec import load_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
CIRCUITS: dict[str, dict[str, Any]] = {
    "pairs": {"layout": "16x6x4", "in_features": 380, "out_features": 390, "gates": ["all_pairs"]},
    "segments": {"layout": "4x4x5x4", "gates": [[0, 1], {"axes": [1], "kind": "diagonal"}, [2, 3]]},
    "kinds": {
        "layout": {"a": 8, "b": 4, "c": 3},
        "gates": [
            {"axes": ["a", "b"], "kind": "lowrank", "rank": 5, "name": "thin"},
            {"axes": ["c"], "kind": "diagonal", "name": "scale"},
            {"axes": ["a"], "per": ["b"], "name": "blocks"},
            {"axes": ["b", "c"], "to": {"d": 6}, "name": "join"},
            {"axes": ["a"], "to": [4], "kind": "slice", "name": "cut"},
            {"axes": ["d"], "kind": "orthogonal", "name": "turn"},
        ],
    },
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_kernels_are_a_text_for_readers(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"stages/kernel-{name}.txt", kernel_text(load_spec({"version": 1, "name": name, **CIRCUITS[name]})))


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_text_is_what_runs(name: str) -> None:
    spec = load_spec({"version": 1, "name": name, **CIRCUITS[name]})
    table = lower_table(build_circuit(spec))
    count = len(table.entries)
    trained = tuple(number for number, entry in enumerate(table.entries) if entry.matrix is not None)
    wholes = [Kernel("forward", 0, count)]
    if is_cheaper_in_segments(table, trained, minus=False):
        begins = starts(table)
        wholes.append(Kernel("forward", 0, begins[-1] + 1, begins, result=False))
        cut = segments(Kernel("segment", 0, count, trained), lambda kernel: Tiling(1, 4))
        assert not isinstance(cut, Refusal)
        wholes += [launch.kernel for launch in cut]
    wholes += [Kernel("forward", 0, trained[-1] + 1, trained, result=False), Kernel("flow", 0, count, trained)]
    code = kernel_text(spec).partition(HEAD)[2]
    found = [part.partition("\n\n# Backward")[0].strip() for part in code.split("@triton.jit")[1:]]
    assert found == [Kernels(table).source(one).partition("@triton.jit")[2].strip() for one in wholes]


PRINT_ALL = """
import sys, hashlib, pathlib
from quanta_compiler.kernels.engines.triton.text import kernel_text
from quanta_compiler.spec import load_spec
for file in sys.argv[1:]:
    print(hashlib.sha256(kernel_text(load_spec(pathlib.Path(file))).encode()).hexdigest())
assert not {"torch", "triton"} & set(sys.modules)
"""


def test_all_examples_are_the_same_in_another_process_and_need_no_triton() -> None:
    files = sorted(EXAMPLES.glob("*.yaml"))
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", PRINT_ALL, *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    texts = [kernel_text(load_spec(file)) for file in files]
    assert done.stdout.split() == [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    for text in texts:
        compile(text, "kernels", "exec")
