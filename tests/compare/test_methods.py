"""The costs of methods that are no circuits: against PEFT's own, modules written from the formulas, and papers."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, TaskType, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from quanta_compiler.compare.method_costs import MethodCost, magnitude_cost
from quanta_compiler.compare.methods import METHODS
from quanta_compiler.driver import compile_circuit
from quanta_compiler.models.layers import ModelLayers, TargetLayer
from quanta_compiler.peft import QuantaConfig
from quanta_compiler.peft.targeted import read_model
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.work import Operation, Product
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.short_notation import preset_document

SHIPPED = Path(__file__).parents[2] / "examples" / "models"
SHAPES = [(24, 24), (24, 40), (40, 24), (36, 10), (10, 36)]
TOKENS = 7


# Independent constructions


class Bottleneck(nn.Module):
    """U tanh(D x)."""

    def __init__(self, wide: int, tall: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(wide, width, bias=False)
        self.up = nn.Linear(width, tall, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.up(torch.tanh(self.down(x)))
        return result


class Mora(nn.Module):
    """Groups of the input, each rotated by an angle of its own, through one square matrix; the outputs in a row."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, wide: int, tall: int, rank: int) -> None:
        super().__init__()
        side = round(math.sqrt((wide + tall) * rank))
        self.side, self.tall = side - side % 2, tall
        self.groups = math.ceil(wide / self.side)
        self.square = nn.Linear(self.side, self.side, bias=False)
        nn.init.normal_(self.square.weight)
        angles = torch.outer(torch.arange(self.groups) + 1.0, torch.rand(self.side // 2) + 0.1).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = self.groups * self.side - x.shape[1]
        x = torch.cat([x, x[:, :missing]], dim=1).reshape(len(x), self.groups, self.side)
        half = self.side // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        y: torch.Tensor = self.square(x * self.cos + turned * self.sin).flatten(1)
        return y.repeat(1, math.ceil(self.tall / y.shape[1]))[:, : self.tall]


class Attention(nn.Module):
    """The heads of one block, keys and values shared by some of them, with a prefix of some length."""

    def __init__(self, heads: int, width: int, shared: int, length: int) -> None:
        super().__init__()
        self.shared = shared
        self.keys = nn.Parameter(torch.randn(heads // shared, length, width))
        self.values = nn.Parameter(torch.randn(heads // shared, length, width))

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        keys = torch.cat([self.keys, keys], dim=1).repeat_interleave(self.shared, dim=0)
        values = torch.cat([self.values, values], dim=1).repeat_interleave(self.shared, dim=0)
        return torch.softmax(queries @ keys.transpose(1, 2), dim=-1) @ values


def constructed(name: str, wide: int, tall: int, value: int) -> nn.Module:
    if name == "mora":
        return Mora(wide, tall, value)
    return Bottleneck(tall if name == "series" else wide, tall, value)


def adapted_by_dora(wide: int, tall: int, rank: int) -> Any:
    config = LoraConfig(r=rank, use_dora=True, target_modules=["0"], init_lora_weights=False)
    return get_peft_model(nn.Sequential(nn.Linear(wide, tall, bias=False)), config)


# What they count


def flops(run: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """Return the FLOPs of matrix products that torch counts, forward and backward."""
    with FlopCounterMode(display=False) as forward:
        result = run()
    with FlopCounterMode(display=False) as backward:
        result.sum().backward()  # type: ignore[no-untyped-call]
    return int(forward.get_total_flops()), int(backward.get_total_flops())


def product_flops(operations: Iterable[Operation]) -> int:
    return sum(operation.flops for operation in operations if isinstance(operation, Product))


def counted(cost: MethodCost) -> tuple[int, int]:
    return product_flops(cost.work.forward), product_flops(cost.work.backward)


class Kept:
    """A tensor that autograd keeps for backward, for as long as it does."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_bytes(module: nn.Module, run: Callable[[], torch.Tensor]) -> int:
    """Return the bytes of storages that autograd holds after `run`, those of the module's own tensors aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Kept:
        held = Kept(tensor)
        kept.add(held)
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        result = run()
    storages = {held.tensor.untyped_storage().data_ptr(): held.tensor.untyped_storage().nbytes() for held in kept}
    assert result.requires_grad
    return sum(size for place, size in storages.items() if place not in own)


def batch(wide: int) -> torch.Tensor:
    return torch.randn(TOKENS, wide, requires_grad=True)


def layer_cost(name: str, wide: int, tall: int, value: int) -> MethodCost:
    per_layer = METHODS[name].per_layer
    assert per_layer is not None
    return per_layer(wide, tall, value, TOKENS)


# One layer


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "value"), [("mora", 2), ("mora", 5), ("series", 3), ("parallel", 3)])
def test_costs_are_those_of_the_formula(name: str, value: int, shape: tuple[int, int]) -> None:
    module, cost = constructed(name, *shape, value), layer_cost(name, *shape, value)
    assert cost.trainable == sum(parameter.numel() for parameter in module.parameters())
    x = batch(shape[1] if name == "series" else shape[0])
    assert counted(cost) == flops(lambda: module(x))
    assert cost.saved_bytes == kept_bytes(module, lambda: module(x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dense_is_a_linear_layer(shape: tuple[int, int]) -> None:
    module, cost, x = nn.Linear(*shape, bias=False), layer_cost("dense", *shape, 0), batch(shape[0])
    assert (cost.trainable, cost.rank_lower, cost.rank_upper) == (module.weight.numel(), min(shape), min(shape))
    assert counted(cost) == flops(lambda: module(x))
    assert cost.saved_bytes == kept_bytes(module, lambda: module(x))
    assert cost.operator_flops == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dora_is_what_peft_runs(shape: tuple[int, int]) -> None:
    wide, tall = shape
    adapted, cost, x = adapted_by_dora(wide, tall, 3), layer_cost("dora", wide, tall, 3), batch(wide)
    assert cost.trainable == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    base = nn.Linear(wide, tall, bias=False).requires_grad_(False)
    assert counted(cost) == tuple(
        whole - part for whole, part in zip(flops(lambda: adapted(x)), flops(lambda: base(x)), strict=True)
    )
    assert cost.saved_bytes == kept_bytes(adapted, lambda: adapted(x))
    # Building its matrix: B A, and five passes over the weight.
    layer = adapted.base_model.model[0]
    with FlopCounterMode(display=False) as counter:
        layer.get_delta_weight("default")
    assert cost.operator_flops == counter.get_total_flops() + 5 * wide * tall


@pytest.mark.parametrize(("preset", "shape"), [*(("lora:3", shape) for shape in SHAPES), ("krona", (24, 24))])
def test_magnitudes_add_to_a_circuit_what_our_layer_runs(preset: str, shape: tuple[int, int]) -> None:
    wide, tall = shape

    def adapted(**keys: Any) -> Any:
        config = QuantaConfig(preset=preset, target_modules=["0"], init_weights=False, backend="torch", **keys)
        return get_peft_model(nn.Sequential(nn.Linear(wide, tall, bias=False)), config)

    plain, dora, x = adapted(residual="none"), adapted(residual="none", dora=True), batch(wide)
    spec = load_spec(preset_document(preset), in_features=wide, out_features=tall)
    operator = circuit_work(compile_circuit(spec, wide))
    cost = magnitude_cost(wide, tall, TOKENS, operator)
    assert cost.trainable == dora.get_nb_trainable_parameters()[0] - plain.get_nb_trainable_parameters()[0] == tall
    assert counted(cost) == tuple(
        whole - part for whole, part in zip(flops(lambda: dora(x)), flops(lambda: plain(x)), strict=True)
    )
    # Torch keeps a mask of the rows that are not zero as well.
    assert cost.saved_bytes == kept_bytes(dora, lambda: dora(x)) - kept_bytes(plain, lambda: plain(x)) - tall


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["dora", "mora"])
def test_ranks_lie_within_the_bounds(name: str, shape: tuple[int, int]) -> None:
    wide, tall = shape
    torch.manual_seed(0)
    cost = layer_cost(name, wide, tall, 2)
    if name == "mora":
        update = Mora(wide, tall, 2)(torch.eye(wide)).T
    else:
        adapted = adapted_by_dora(wide, tall, 2)
        layer = adapted.base_model.model[0]
        nn.init.uniform_(layer.lora_magnitude_vector["default"].weight, 1, 2)
        update = (adapted(torch.eye(wide)) - layer.base_layer(torch.eye(wide))).T
    rank = int(torch.linalg.matrix_rank(update.double(), rtol=1e-5))
    assert cost.rank_lower is not None
    assert cost.rank_upper is not None
    assert cost.rank_lower <= rank <= cost.rank_upper
    assert rank > 2


# Whole models


def little(**keys: Any) -> Any:
    """Return a LLaMA of two blocks, without weights."""
    config = AutoConfig.for_model(
        "llama",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        **keys,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.fixture
def layers(tmp_path: Path) -> ModelLayers:
    (tmp_path / "config.json").write_text(json.dumps(little().config.to_dict()), encoding="utf-8")
    return read_model(tmp_path, ["q_proj", "v_proj", "down_proj"])


def test_dora_on_a_model(layers: ModelLayers) -> None:
    config = LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "v_proj", "down_proj"])
    cost = METHODS["dora"].per_model(layers, 4, TOKENS)
    assert cost.trainable == trained(get_peft_model(little(), config))
    each = [layer_cost("dora", layer.in_features, layer.out_features, 4) for layer in layers.layers]
    assert cost.saved_bytes == sum(one.saved_bytes for one in each)
    assert cost.work.step_flops == sum(one.work.step_flops for one in each)
    assert cost.operator_flops == sum(one.operator_flops or 0 for one in each)
    assert (cost.rank_lower, cost.rank_upper) == (16 - 4, 32)


def attention_flops(width: int, length: int) -> tuple[int, int]:
    """Return the FLOPs of one block's attention, four heads of queries and two of keys, forward and backward."""
    states = [torch.randn(heads, TOKENS, width, requires_grad=True) for heads in (4, 2, 2)]
    module = Attention(4, width, 2, length)
    return flops(lambda: module(*states))


@pytest.mark.parametrize("keys", [{}, {"head_dim": 16}], ids=["usual heads", "wide heads"])
def test_prefix_on_a_model(tmp_path: Path, keys: dict[str, int]) -> None:
    model = little(**keys)
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()), encoding="utf-8")
    found = read_model(tmp_path, None)
    cost = METHODS["prefix"].per_model(found, 5, TOKENS)
    prefixed = get_peft_model(model, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5))
    assert cost.trainable == trained(prefixed) == 2 * 5 * found.key_value_width * found.blocks
    with_prefix, without = (attention_flops(found.head_width, length) for length in (5, 0))
    assert counted(cost) == tuple(2 * (more - less) for more, less in zip(with_prefix, without, strict=True))


def test_adapters_on_a_model(layers: ModelLayers) -> None:
    series, parallel = (METHODS[name].per_model(layers, 6, TOKENS) for name in ("series", "parallel"))
    assert series.trainable == 2 * trained(Bottleneck(32, 32, 6))
    assert parallel.trainable == 2 * (trained(Bottleneck(32, 48, 6)) + trained(Bottleneck(48, 32, 6)))
    assert series.work.step_flops == 2 * layer_cost("series", 9, 32, 6).work.step_flops
    assert (parallel.operator_flops, parallel.rank_lower, parallel.rank_upper) == (None, None, None)


def test_what_a_configuration_does_not_say() -> None:
    layer = TargetLayer("q", 8, 8)
    model = ModelLayers(
        name="odd", parameters=64, blocks=0, hidden_size=8, mlp_width=0, heads=0, head_width=0, key_value_width=0,
        layers=(layer,),
    )  # fmt: skip
    for name, fact in (("series", "blocks"), ("parallel", "mlp_width"), ("prefix", "heads")):
        with pytest.raises(ValueError, match=f"the configuration of odd does not give '{fact}'"):
            METHODS[name].per_model(model, 2, TOKENS)
    assert METHODS["dora"].per_model(model, 2, TOKENS).trainable == 2 * 16 + 8


def test_a_square_matrix_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a square matrix of side 30 does not fit a layer of 10 -> 36"):
        layer_cost("mora", 10, 36, 20)


# Names and values
