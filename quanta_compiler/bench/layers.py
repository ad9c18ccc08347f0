"""Layers of the same shape that are no circuit: a dense one, and LoRA as two matrix products."""

import math

import torch

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting
from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING


def dense_layer(setting: Setting) -> Contestant:
    """Return a dense layer whose weight trains."""
    inputs, outputs = setting.features
    weight = _drawn((outputs, inputs), setting.dtype)
    flops = 2.0 * setting.tokens * inputs * outputs
    item, batch = setting.dtype.itemsize, setting.tokens * (inputs + outputs)
    return Contestant(
        name="dense",
        title="a dense layer",
        forward=lambda x: x @ weight.t(),
        parameters=(weight,),
        own=(weight,),
        costs={
            FORWARD: Cost(flops, item * (batch + inputs * outputs)),
            TRAINING: Cost(3 * flops, 2 * item * (batch + inputs * outputs)),
        },
    )


def lora_layer(setting: Setting, rank: int) -> Contestant:
    """Return LoRA's update B (A x), without scale and dropout.

    Raises:
        LeftOutError: the rank is larger than the layer.

    """
    inputs, outputs = setting.features
    if rank > min(inputs, outputs):
        raise LeftOutError(f"r is more than the layer's rank, {min(inputs, outputs)}")
    left, right = _drawn((outputs, rank), setting.dtype), _drawn((rank, inputs), setting.dtype)
    flops = 2.0 * setting.tokens * rank * (inputs + outputs)
    item, batch = setting.dtype.itemsize, setting.tokens * (inputs + rank + outputs)
    parameters = rank * (inputs + outputs)
    return Contestant(
        name=f"lora-{rank}",
        title=f"LoRA, B (A x) with r = {rank}",
        forward=lambda x: x @ right.t() @ left.t(),
        parameters=(left, right),
        own=(left, right),
        costs={
            FORWARD: Cost(flops, item * (batch + parameters)),
            TRAINING: Cost(3 * flops, 2 * item * (batch + parameters)),
            OPERATOR: Cost(2.0 * rank * inputs * outputs, item * inputs * outputs),
        },
        operator=lambda: left @ right,
    )


def _drawn(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    matrix = torch.randn(shape, generator=generator).div_(math.sqrt(shape[1])).to(dtype)
    return matrix.requires_grad_()
