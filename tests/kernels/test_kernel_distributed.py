"""A circuit on every backend in DistributedDataParallel: two processes have the gradients of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import scaled_module
from fused_circuits import assert_close, vectors
from random_circuits import file_of
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from quanta_compiler.driver import compile_circuit

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
RUNS = (("fused", False), ("auto", False), ("torch", True))
CIRCUIT = file_of(
    "4x3x2",
    [
        "all_pairs",
        {"axes": [0, 1], "kind": "lowrank", "rank": 2},
        {"axes": [2], "kind": "diagonal", "per": [0]},
        {"axes": [1], "name": "fixed", "frozen": True},
        {"axes": [1], "name": "twice"},
        {"axes": [1], "share": "twice", "transpose": True},
    ],
)


def train(rank: int, folder: str) -> None:
    """Be one of two processes: write the averaged gradients of every run, and the parameters after a step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for number, (backend, recompute) in enumerate(RUNS):
        # Gates of their own: DDP makes those of the second process those of the first.
        module, x = made(backend, recompute, seed=rank)
        wrapped = DistributedDataParallel(module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(x[rank::2]).square().mean().backward()
            optimizer.step()
        found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        torch.save((found, module.state_dict()), f"{folder}/{number}-{rank}.pt")
    # Not by tidying up: gloo's threads can wait for the interpreter that waits for them (pytorch/pytorch#56297).
    os._exit(0)


def made(backend: str, recompute: bool, seed: int = 0) -> tuple[Any, torch.Tensor]:
    """Return a module with well-scaled gates on a backend, and a batch for both processes."""
    circuit = compile_circuit(CIRCUIT)
    module = circuit.module(backend=backend, recompute=recompute)
    module.load_state_dict(scaled_module(circuit, torch.float32, seed).state_dict())
    return module, vectors(circuit, 38, dtype=torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all runs, in two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    paths = [str(HERE), str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    script = "import sys; from test_kernel_distributed import train; train(int(sys.argv[1]), sys.argv[2])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-4000:]
    finally:
        for process in processes:
            process.kill()
    return folder


@pytest.mark.parametrize("number", range(len(RUNS)), ids=[f"{backend}-{recompute}" for backend, recompute in RUNS])
def test_gradients_and_steps_are_those_of_one_process(folder: Path, number: int) -> None:
    module, x = made("torch", False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    expected = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert len(expected) > 3
    for rank in range(2):
        found, state = torch.load(folder / f"{number}-{rank}.pt")
        assert_close(found, expected, 1e-4)
        assert_close(state, module.state_dict(), 1e-5)
