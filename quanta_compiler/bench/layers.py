"""Layers of the same shape that are no circuit: a dense one, and LoRA as two matrix products."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting
from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING


def dense_layer(setting: Setting) -> Contestant:
    """Return a dense layer whose weight trains."""
    inputs, outputs = setting.features
    weight = _drawn((outputs, inputs), setting)
    return _layer(setting, "dense", "a dense layer", lambda x: x @ weight.t(), (weight,))


def lora_layer(setting: Setting, rank: int) -> Contestant:
    """Return LoRA's update B (A x), without scale and dropout.

    Raises:
        LeftOutError: the rank is larger than the layer.

    """
    inputs, outputs = setting.features
    if rank > min(inputs, outputs):
        raise LeftOutError(f"r is more than the layer's rank, {min(inputs, outputs)}")
    left, right = _drawn((outputs, rank), setting), _drawn((rank, inputs), setting)
    title = f"LoRA, B (A x) with r = {rank}"
    layer = _layer(setting, f"lora-{rank}", title, lambda x: x @ right.t() @ left.t(), (left, right), between=rank)
    operator = Cost(2.0 * rank * inputs * outputs, setting.dtype.itemsize * inputs * outputs)
    return replace(layer, costs={**layer.costs, OPERATOR: operator}, operator=lambda: left @ right)


def _layer(
    setting: Setting,
    name: str,
    title: str,
    forward: Callable[[torch.Tensor], torch.Tensor],
    matrices: tuple[torch.Tensor, ...],
    *,
    between: int = 0,
) -> Contestant:
    """Return a layer of matrices that train, with `between` numbers of a token between them."""
    numbers = sum(matrix.numel() for matrix in matrices)
    flops = 2.0 * setting.tokens * numbers
    held = setting.dtype.itemsize * (setting.tokens * (sum(setting.features) + between) + numbers)
    costs = {FORWARD: Cost(flops, held), TRAINING: Cost(3 * flops, 2 * held)}
    return Contestant(name, title, forward, parameters=matrices, own=matrices, costs=costs)


def _drawn(shape: tuple[int, int], setting: Setting) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    matrix = torch.randn(shape, generator=generator).div_(math.sqrt(shape[1])).to(setting.device, setting.dtype)
    return matrix.requires_grad_()
