"""Layers whose weight a model reads itself: refused where that is known, told of where no forward pass calls them."""

from __future__ import annotations

import ast
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import Mlp, adapted, batch, train
from peft import get_peft_model
from torch import nn

from quanta_compiler.peft import AdapterError, QuantaConfig
from quanta_compiler.peft.readers import _READ, reader_of

REMEDY = r"hint: exclude it: QuantaConfig\(exclude_modules=\[\.\.\.\]\)"


def refused(model: nn.Module, **keys: Any) -> str:
    """Return the error of adapters that would do nothing; the model must be what it was."""
    before = [(name, id(module)) for name, module in model.named_modules()]
    with pytest.raises(AdapterError, match=f"(?s)an adapter on it would do nothing.*{REMEDY}") as caught:
        get_peft_model(model, QuantaConfig(**keys))
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    return str(caught.value)


def encoder(kind: type[nn.TransformerEncoderLayer] = nn.TransformerEncoderLayer, **keys: Any) -> nn.Module:
    keys = {"batch_first": True, "activation": "gelu", "norm_first": True, "dropout": 0.0, **keys}
    return nn.Sequential(kind(32, 4, 64, **keys))


def test_the_feed_forward_layers_of_torch_encoders_are_refused() -> None:
    for model in (encoder(), encoder(type("Own", (nn.TransformerEncoderLayer,), {}))):
        text = refused(model, target_modules=["linear1", "linear2"])
        assert "0.linear1: torch's TransformerEncoderLayer reads its weight past its forward" in text
        assert "0.linear2: torch's" in text
        # Excluding them is the remedy; what is left is adapted.
        assert "linear1" in refused(model, target_modules="all-linear", exclude_modules=r".*(self_attn.*|linear2)")


class Calls(nn.TransformerEncoderLayer):
    """An encoder layer whose forward calls its layers."""

    def forward(self, src: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        result: torch.Tensor = src + self.linear2(torch.relu(self.linear1(src)))
        return result


@pytest.mark.parametrize(
    "model",
    [encoder(batch_first=False), encoder(activation=torch.tanh), encoder(Calls)],
    ids=["sequence first", "another activation", "a forward of its own"],
)
def test_encoders_that_never_take_the_fast_path_are_adapted(model: nn.Module) -> None:
    wrapped = get_peft_model(model, QuantaConfig(target_modules=["linear1", "linear2"], init_weights=False))
    x = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    trained = wrapped.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(wrapped.eval()(x), trained)


def test_projections_that_scans_take_as_matrices_are_refused() -> None:
    from transformers import MambaConfig, MambaModel

    sizes: dict[str, Any] = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "vocab_size": 8}
    model = MambaModel(MambaConfig(**sizes, time_step_rank=4))
    text = refused(model, target_modules="all-linear")
    for name in ("x_proj", "dt_proj", "out_proj"):
        assert f"layers.1.mixer.{name}: transformers's MambaMixer" in text
    assert "in_proj" not in text
    wrapped = get_peft_model(
        model, QuantaConfig(target_modules="all-linear", exclude_modules=["x_proj", "dt_proj", "out_proj"])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped.train()(torch.arange(6)[None]).last_hidden_state.sum().backward()


def test_whether_a_layer_is_read_may_depend_on_the_configuration() -> None:
    from transformers.models.rwkv.modeling_rwkv import RwkvConfig, RwkvFeedForward

    config = RwkvConfig(hidden_size=16, attention_hidden_size=16, num_hidden_layers=4, rescale_every=2)
    assert [reader_of(RwkvFeedForward(config, layer_id=number), "value") for number in range(3)] == [
        *(None, None),
        "transformers's RwkvFeedForward",
    ]
    assert reader_of(RwkvFeedForward(config, layer_id=3), "key") is None


class Reads(Mlp):
    """Multiplies by the weight of k_proj itself, as fused kernels do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.o_proj(nn.functional.linear(self.q_proj(x), self.k_proj.weight))
        return result


class Experts(nn.Module):
    """Two experts, of which one is chosen, and two blocks, of which the second is dropped; a tail of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Mlp() for _ in range(2))
        self.blocks = nn.ModuleList(Mlp() for _ in range(2))
        self.head_experts = nn.ModuleDict({"q_proj": nn.Linear(24, 24)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.blocks[0](self.experts[1](x))
        return result


def told(model: nn.Module, x: torch.Tensor) -> list[str]:
    """Return what two forward passes say about layers that nobody calls."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(x)
        model(x)
    return [str(warning.message) for warning in caught if "forward pass has called" in str(warning.message)]


def test_a_layer_that_training_never_calls_is_told_of_once() -> None:
    model = adapted(Reads())
    assert told(model.eval(), batch()) == []
    assert told(model.train(), batch()) == [
        "no forward pass has called these adapted layers: k_proj\n"
        "hint: if no other batch calls them, the model does not use them or reads their weights past the adapter; "
        "exclude them: QuantaConfig(exclude_modules=[...])"
    ]
    assert told(model, batch()) == []


def test_nothing_is_said_of_layers_that_are_called_now_and_then() -> None:
    assert told(adapted(Mlp()).train(), batch()) == []
    assert told(adapted(Experts()).train(), batch()) == []
    # Called before, in evaluation.
    model = adapted(Reads())
    model.base_model.model.k_proj(batch())
    assert told(model.train(), batch()) == []
    # Nothing of it trains.
    model = adapted(Reads())
    model.base_model.model.k_proj.requires_grad_(False)
    assert told(model.train(), batch()) == []


@pytest.mark.slow
def test_looking_for_them_breaks_no_graph() -> None:
    model = adapted(Mlp(), backend="torch")
    expected = model(batch())
    compiled: Any = torch.compile(model.train(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch()), expected)
    # Nor does it compile a layer a second time.
    layer = adapted(Mlp(), backend="torch").base_model.model.q_proj
    frames: list[int] = []

    def count(graph: Any, _: Any) -> Any:
        frames.append(1)
        return graph.forward

    once: Any = torch.compile(layer, fullgraph=True, backend=count)
    once(batch())
    once(batch())
    assert layer.was_called
    assert len(frames) == 1


def test_models_that_are_adapted_as_usual_say_nothing() -> None:
    model = adapted(Mlp())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, batch())


LIKE_A_TENSOR = {"dtype", "device", "shape", "size", "data_ptr", "data", "_is_hf_initialized"}
HARMLESS = {
    # Only with `query_states`, which no model of transformers passes.
    ("DisentangledSelfAttention", "in_proj"),
    # Clamped in place, then called.
    *(("Gemma3nTextAltUp", f"{part}_coefs") for part in ("prediction", "correction")),
    # Looked at, then called.
    *((kind, "fc2") for kind in ("NllbMoeDenseActDense", "SeamlessM4TFeedForwardNetwork")),
    ("SeamlessM4Tv2FeedForwardNetwork", "fc2"),
}
NOT_IN_FORWARD = ("init", "reset", "fuse_projections", "get_", "set_", "_from_indices")


def linear_attributes(kind: ast.ClassDef) -> set[str]:
    """Return the attributes of a class that are linear layers."""
    assigned = [node for node in ast.walk(kind) if isinstance(node, ast.Assign) and "Linear" in ast.unparse(node.value)]
    return {target.attr for node in assigned for target in node.targets if isinstance(target, ast.Attribute)}


def weights_read(method: ast.FunctionDef) -> Iterator[str]:
    """Yield the attributes of self whose weight a method uses as a tensor."""
    parents = {child: node for node in ast.walk(method) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(method):
        if not (isinstance(node, ast.Attribute) and node.attr == "weight" and isinstance(node.ctx, ast.Load)):
            continue
        above = parents.get(node)
        is_looked_at = isinstance(above, ast.Attribute) and above.attr in LIKE_A_TENSOR
        is_a_type = isinstance(above, ast.Call) and ast.unparse(above.func) == "isinstance"
        if isinstance(node.value, ast.Attribute) and not is_looked_at and not is_a_type:
            yield node.value.attr


@pytest.mark.slow
@pytest.mark.parametrize("package", ["transformers", "diffusers"])
def test_no_module_of_the_installed_packages_is_forgotten(package: str) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    known = {(kind, name) for kind, names in _READ[package].items() for name in names}
    missing = set()
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ".weight" not in text or path.name.startswith("modular_"):
            continue
        for kind in ast.walk(ast.parse(text)):
            if isinstance(kind, ast.ClassDef):
                linear = linear_attributes(kind)
                methods = [node for node in kind.body if isinstance(node, ast.FunctionDef)]
                missing |= {
                    (kind.name, name)
                    for method in methods
                    if not any(part in method.name for part in NOT_IN_FORWARD)
                    for name in weights_read(method)
                    if name in linear
                }
    assert missing - known - HARMLESS == set()
