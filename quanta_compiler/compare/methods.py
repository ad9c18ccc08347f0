"""The published methods that are no circuits, and what each costs: a table."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from quanta_compiler.compare.method_costs import (
    MethodCost,
    bottleneck_cost,
    dense_cost,
    dora_cost,
    mora_cost,
    prefix_cost,
    repeated,
)
from quanta_compiler.models.layers import ModelLayers

LayerCost = Callable[[int, int, int, int], MethodCost]
"""Of `in_features`, `out_features`, the method's value, and the tokens of the batch."""
ModelCost = Callable[[ModelLayers, int, int], MethodCost]
"""Of the model, the method's value, and the tokens of the batch."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to fine-tune that is no circuit: where it was published, and what it costs."""

    name: str
    paper: str
    formula: str
    parameters: str
    """Its trainable numbers for a layer of n inputs and m outputs, or for a block."""
    value_meaning: str | None
    """What the number after the colon is; None where there is none."""
    example: int
    """A usual value."""
    per_layer: LayerCost | None
    """None where the method has no layer to be on."""
    per_block: ModelCost | None = None
    """Given where a model has it block by block, whatever the targets."""

    def __str__(self) -> str:
        return self.name if self.value_meaning is None else f"{self.name}:{self.example}"

    def per_model(self, model: ModelLayers, value: int, tokens: int) -> MethodCost:
        """Return the cost on each targeted layer of a model, or in each of its blocks."""
        if self.per_block is not None:
            return self.per_block(model, value, tokens)
        assert self.per_layer is not None, "what has no layer to be on is in the blocks"
        groups = model.groups()
        return repeated([(self.per_layer(inner, outer, value, tokens), count) for _, inner, outer, count in groups])


def _series(_in_features: int, out_features: int, width: int, tokens: int) -> MethodCost:
    note = "after the layer, on its output; it is not linear, and cannot be merged"
    return bottleneck_cost(out_features, out_features, width, tokens, note)


def _series_model(model: ModelLayers, width: int, tokens: int) -> MethodCost:
    hidden, blocks = _said(model, "hidden_size", "blocks")
    note = "one after the MLP of each block, whatever the targets; it is not linear, and cannot be merged"
    return repeated([(bottleneck_cost(hidden, hidden, width, tokens, note), blocks)])


def _parallel_model(model: ModelLayers, width: int, tokens: int) -> MethodCost:
    hidden, inner, blocks = _said(model, "hidden_size", "mlp_width", "blocks")
    place = "beside the MLP's first and last projection in each block, whatever the targets"
    note = f"{place}; it is not linear, and cannot be merged"
    shapes = ((hidden, inner), (inner, hidden))
    return repeated([(bottleneck_cost(*shape, width, tokens, note), blocks) for shape in shapes])


def _prefix_model(model: ModelLayers, length: int, tokens: int) -> MethodCost:
    heads, width, keys, blocks = _said(model, "heads", "head_width", "key_value_width", "blocks")
    return repeated([(prefix_cost(heads, width, keys, length, tokens), blocks)])


def _said(model: ModelLayers, *facts: str) -> Iterator[int]:
    for fact in facts:
        value: int = getattr(model, fact)
        if not value:
            needs = "which a method of whole blocks needs"
            raise ValueError(f"the configuration of {model.name} does not give {fact!r}, {needs}")
        yield value


_TABLE = (
    Method(
        name="dense",
        paper="no paper",
        formula="W' = W + D",
        parameters="n m",
        value_meaning=None,
        example=0,
        per_layer=dense_cost,
    ),
    Method(
        name="dora",
        paper="Liu et al., DoRA, 2024, equation 5 (arXiv 2402.09353)",
        formula="W' = m (W + B A) / norm(W + B A)",
        parameters="r (n + m) + m",
        value_meaning="the rank r of B A",
        example=16,
        per_layer=dora_cost,
    ),
    Method(
        name="mora",
        paper="Jiang et al., MoRA, 2024, with rotation (arXiv 2405.12130)",
        formula="y = W x + decompress(M compress(x)), M with side s = root of (n + m) r",
        parameters="s^2",
        value_meaning="the rank r of the LoRA that has as many numbers",
        example=8,
        per_layer=mora_cost,
    ),
    Method(
        name="series",
        paper="Houlsby et al., 2019 (arXiv 1902.00751); placed as by Hu et al., LLM-Adapters, 2023 (arXiv 2304.01933)",
        formula="y = z + U f(D z), z = W x",
        parameters="2 b m; for a block, 2 b hidden",
        value_meaning="the width b of the bottleneck",
        example=256,
        per_layer=_series,
        per_block=_series_model,
    ),
    Method(
        name="parallel",
        paper="He et al., 2022 (arXiv 2110.04366); placed as by Hu et al., LLM-Adapters, 2023 (arXiv 2304.01933)",
        formula="y = W x + U f(D x)",
        parameters="b (n + m); for a block, 2 b (hidden + MLP)",
        value_meaning="the width b of the bottleneck",
        example=256,
        per_layer=partial(bottleneck_cost, note="beside the layer; it is not linear, and cannot be merged"),
        per_block=_parallel_model,
    ),
    Method(
        name="prefix",
        paper="Li and Liang, Prefix-Tuning, 2021 (arXiv 2101.00190), without the network that made the prefix",
        formula="attention(q, [P_k; K], [P_v; V])",
        parameters="for a block, 2 l (key and value width)",
        value_meaning="the length l of the prefix",
        example=10,
        per_layer=None,
        per_block=_prefix_model,
    ),
)
METHODS = {method.name: method for method in _TABLE}
"""By name, in the order of the documentation."""


def parse_method(text: str) -> tuple[Method, int] | None:
    """Read `dora:16`: the method and its value, 0 for `dense`, which has none; None where the name is no method.

    Raises:
        ValueError: the method's value is missing, too much, or no positive integer.

    """
    name, colon, value = text.partition(":")
    method = METHODS.get(name)
    if method is None:
        return None
    if method.value_meaning is None:
        if colon:
            raise ValueError(f"`{name}` takes no value: write `{name}`")
        return method, 0
    if not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        given = f"not {value!r}" if colon else "and none is given"
        raise ValueError(f"`{name}` takes {method.value_meaning}, 1 to 999999, {given}: write `{method}`")
    return method, int(value)
