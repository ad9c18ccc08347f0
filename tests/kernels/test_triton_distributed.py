"""The operator by the generated kernels in a module that is distributed: one process has the gradients of none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import assert_close, on_both, vectors
from interpreted_kernels import interpreter, needs_triton  # noqa: F401 - a fixture
from random_circuits import file_of
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from quanta_compiler.driver import compile_circuit

pytestmark = [needs_triton, pytest.mark.usefixtures("interpreter")]
CIRCUIT = compile_circuit(
    file_of(
        "3x4x2",
        [[0, 1], {"axes": [1], "name": "fixed", "frozen": True}, {"axes": [1, 2], "kind": "lowrank", "rank": 2}],
    )
)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Be the only process of a group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("wrapped", [DistributedDataParallel, fully_shard])
def test_gradients_and_steps_are_those_of_one_module(wrapped: Any, checkpointed: bool) -> None:
    _, alone = on_both(CIRCUIT, torch.float32)
    both = {"alone": alone, "wrapped": copy.deepcopy(alone)}
    both["wrapped"] = wrapped(both["wrapped"])
    x = vectors(CIRCUIT, 9, dtype=torch.float32)
    found = {}
    for name, module in both.items():
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            y = checkpoint(module, x, use_reentrant=False) if checkpointed else module(x)
            y.square().mean().backward()
            optimizer.step()
        parameters = {key.removeprefix("module."): one for key, one in module.named_parameters()}
        trained = {key: one for key, one in parameters.items() if one.requires_grad}
        found[name] = {
            **{key: whole(one) for key, one in trained.items()},
            **{f"{key}'s gradient": whole(one.grad) for key, one in trained.items()},
        }
    assert len(found["alone"]) == 6
    assert_close(found["wrapped"], found["alone"], 1e-6)


def whole(tensor: Any) -> torch.Tensor:
    """Return a tensor, of which a process may have a part."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
