"""The kernel as other machines compile it, and under sanitizers: judged by the portable path."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compiled_circuits import compiled
from fused_circuits import TOKENS, executable_of, matrices_of, on_both, vectors
from random_circuits import error

from quanta_compiler.kernels.engines.cpu.build import SOURCE
from quanta_compiler.kernels.engines.cpu.compiler import KernelError, find_compiler
from quanta_compiler.kernels.engines.cpu.engine import KernelTable
from quanta_compiler.kernels.engines.portable import engine as portable

pytestmark = pytest.mark.slow

VARIANTS = {
    "128-bit vectors": ["-march=x86-64", "-fopenmp"],
    "256-bit vectors": ["-march=haswell", "-fopenmp"],
    "no shuffles": ["-march=native", "-fopenmp", "-DQUANTA_NO_SHUFFLES"],
    "no OpenMP": ["-march=native"],
    "no optimization": ["-march=native", "-fopenmp", "-O0"],
}
SEEDS = range(12)


def build(folder: Path, flags: list[str]) -> Path:
    try:
        compiler = find_compiler()
    except KernelError as problem:
        pytest.skip(f"there is no compiler: {problem.reason}")
    target = folder / "kernel.so"
    command = [*compiler.words, "-O2", "-std=c++17", "-shared", "-fPIC", *flags, str(SOURCE), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def judge(library: ctypes.CDLL) -> None:
    """Compare forward and backward with the portable path on random circuits, in float64 and bfloat16."""
    for seed in SEEDS:
        module, _ = on_both(compiled(seed))
        table = executable_of(module).table
        kernel, plainly = KernelTable(library, table), portable.prepare(table)
        for dtype, close in ((torch.float64, 1e-12), (torch.bfloat16, 0.02)):
            matrices = matrices_of(module, dtype)
            needed = [True] * (1 + len(matrices))
            for tokens in TOKENS:
                x = vectors(compiled(seed), tokens, dtype=dtype)
                y = kernel.forward(x, matrices)
                assert error(y, plainly.forward(x, matrices)) < close
                found, sums = kernel.backward(y, x, matrices, needed)
                expected, totals = plainly.backward(y, x, matrices, needed)
                assert found is not None
                assert expected is not None
                assert error(found, expected) < close
                for one, other in zip(sums, totals, strict=True):
                    assert one is not None
                    assert other is not None
                    assert error(one.reshape(other.shape), other) < close


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS)
def test_every_vector_width_computes_the_same(flags: list[str], tmp_path: Path) -> None:
    if "haswell" in str(flags) and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    if "-march=x86-64" in flags and os.uname().machine != "x86_64":
        pytest.skip("not an x86 CPU")
    judge(ctypes.CDLL(str(build(tmp_path, flags))))


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    # Loose loads are meant to be unaligned.
    flags = ["-march=native", "-fopenmp", "-g", "-fsanitize=address,undefined", "-fno-sanitize=alignment"]
    path = build(tmp_path, [*flags, "-fno-sanitize-recover=undefined"])
    runtimes = []
    for name in ("libasan.so", "libubsan.so"):
        asked = [*find_compiler().words, f"-print-file-name={name}"]
        runtimes.append(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    if not all(Path(runtime).is_absolute() for runtime in runtimes):
        pytest.skip("the compiler has no sanitizers")
    code = (
        "import ctypes, sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}\n"
        f"import test_kernel_variants\ntest_kernel_variants.judge(ctypes.CDLL({str(path)!r}))\n"
    )
    environment = {**os.environ, "LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
