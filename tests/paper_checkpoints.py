"""State dicts as the QuanTA paper's code writes them, and its forward pass straight from what the keys mean."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence

import torch

State = dict[str, torch.Tensor]
Pair = tuple[int, int]


def pairs(axis_count: int) -> list[Pair]:
    return list(itertools.combinations(range(-1, -axis_count - 1, -1), 2))


def paper_layer(prefix: str, layout: Sequence[int], generator: torch.Generator, *, frozen: bool = True) -> State:
    """Return one layer's gates T, trained away from their frozen copies S."""
    state = {}
    for a, b in pairs(len(layout)):
        shape = (layout[b], layout[a], layout[b], layout[a])
        start = torch.randn(shape, generator=generator) / math.sqrt(layout[a] * layout[b])
        change = torch.randn(shape, generator=generator) / math.sqrt(layout[a] * layout[b])
        state[f"{prefix}.quanta_weights.{a} {b}"] = start + 0.3 * change
        if frozen:
            state[f"{prefix}.quanta_weights2.{a} {b}"] = start
    return state


def paper_apply(gates: Mapping[Pair, torch.Tensor], layout: Sequence[int], x: torch.Tensor) -> torch.Tensor:
    """Apply gates one by one, `[tokens, prod(layout)]` to the same; the key `a b` is `[b, a, b, a]`, output first."""
    axis_count = len(layout)
    state = x.reshape(-1, *layout)
    for a, b in pairs(axis_count):
        if (a, b) not in gates:
            continue
        before = list(string.ascii_lowercase[:axis_count])
        after = before.copy()
        after[a], after[b] = "Y", "Z"
        gate = after[b] + after[a] + before[b] + before[a]
        state = torch.einsum(f"{gate},T{''.join(before)}->T{''.join(after)}", gates[a, b].to(x.dtype), state)
    return state.reshape(len(x), -1)


def paper_update(
    state: Mapping[str, torch.Tensor], prefix: str, layout: Sequence[int], x: torch.Tensor, out_features: int
) -> torch.Tensor:
    """Return (T - S) x for `[tokens, in_features]`, input and output padded with zeros or truncated as need be."""
    width = math.prod(layout)
    fitted = torch.nn.functional.pad(x, (0, width - x.shape[1]))
    result = torch.zeros(len(x), width, dtype=x.dtype)
    for group, sign in (("quanta_weights", 1.0), ("quanta_weights2", -1.0)):
        start = f"{prefix}.{group}."
        gates = {}
        for key, tensor in state.items():
            if key.startswith(start):
                a, b = key.removeprefix(start).split(" ")
                gates[int(a), int(b)] = tensor
        if gates:
            result += sign * paper_apply(gates, layout, fitted)
    return torch.nn.functional.pad(result, (0, out_features - width))


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
