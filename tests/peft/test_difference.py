"""What trains is the difference D = T - S: forward, delta, merging, saving and analysis are one number."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, Mlp, adapted, batch, circuit_layers
from mixed_circuit import MIXED
from peft import PeftModel, get_peft_model
from random_circuits import file_of
from safetensors.torch import load_file
from torch import nn

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.peft import QuantaConfig
from quanta_compiler.spec import load_spec

ROTATIONS = file_of("8x4", [[0], {"axes": [0, 1], "kind": "orthogonal"}, {"axes": [1], "kind": "pauli", "layers": 1}])
CIRCUITS: dict[str, Any] = {
    "quanta": file_of("16x5x4", ["all_pairs"]),
    "rotations": ROTATIONS,
    "orthogonal": file_of("8x4", ["all_pairs"], init="orthogonal"),
    "mixed": MIXED,
    "lora": LORA,
}


class Layer(nn.Module):
    """A layer whose output is that of its adapter, but for a weight of some dtype."""

    def __init__(self, circuit: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        spec = load_spec(circuit)
        self.proj = nn.Linear(spec.in_features, spec.out_features, bias=False)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn.init.normal_(self.proj.weight, std=0.02)
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.proj(x)
        return result


def model_with(name: str, dtype: torch.dtype = torch.float32, **keys: Any) -> Any:
    return adapted(Layer(CIRCUITS[name], dtype), circuit=CIRCUITS[name], target_modules=["proj"], **keys)


def move(model: nn.Module, by: float = 0.01) -> None:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn(parameter.shape, generator=generator)


def cast(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
    """Cast whatever trains, as TRL does for quantized bases."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def layer_of(model: Any) -> Any:
    return next(iter(circuit_layers(model).values()))


def applied(model: Any) -> torch.Tensor:
    """Return the update that the forward pass applies, as a matrix, in float64."""
    layer = layer_of(model)
    with torch.no_grad():
        eye = torch.eye(layer.in_features)
        folded = layer.quanta_circuit_residual["default"] == "folded"
        output = layer(eye) - layer.get_base_layer()(eye) if folded else layer._update("default", eye, with_copy=True)
        return output.double().T  # type: ignore[no-any-return]


def scales(model: Any) -> float:
    """Return |S| + |T| as operators."""
    layer = layer_of(model)
    fitted = layer.quanta_circuit_plan["default"]
    eye = torch.eye(layer.in_features)
    with torch.no_grad():
        return sum(float(fitted.apply(dict(t), eye).norm()) for t in layer.circuits("default") if t is not None)


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
@pytest.mark.parametrize("name", [name for name in CIRCUITS if name != "lora"])
@pytest.mark.parametrize("is_cast", [False, True])
def test_all_of_it_is_one_operator(name: str, residual: str, is_cast: bool, tmp_path: Path) -> None:
    model = model_with(name, residual=residual)
    move(model)
    if is_cast:
        cast(model)
    model.eval()
    update, bound = applied(model), 4 * 2**-24 * scales(model)
    layer = layer_of(model)
    weight = layer.get_base_layer().weight.detach().double().clone()
    rounding = 2**-24 * float(weight.norm())
    kept = rounding * 4 if residual == "folded" else 0.0
    assert update.norm() > 100 * bound
    assert (layer.get_delta_weight("default").double() - update).norm() <= bound + kept
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(Layer(CIRCUITS[name]), str(tmp_path)).eval()
    assert (applied(loaded) - update).norm() <= bound + kept
    read = read_adapter(tmp_path).updates["proj"]
    assert (read.matrix(torch.device("cpu")) - update).norm() <= bound + kept
    merged = model.merge_and_unload()
    assert (merged.proj.weight.detach().double() - weight - update).norm() <= bound + kept + 2 * rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [name for name in CIRCUITS if name != "lora"])
def test_an_untrained_adapter_is_zero_whatever_is_cast(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    for change in ("trained", "all", "halves"):
        model = model_with(name, dtype, residual="frozen_copy")
        if change == "trained":
            cast(model)
        elif change == "all":
            model.to(torch.bfloat16)
        else:
            for parameter in layer_of(model).quanta_circuit_frozen.parameters():
                parameter.data = parameter.data.to(torch.float16)
        layer = layer_of(model)
        assert not layer.get_delta_weight("default").any()
        assert not applied(model).any()
        model.save_pretrained(str(tmp_path))
        loaded = PeftModel.from_pretrained(Layer(CIRCUITS[name], dtype), str(tmp_path))
        assert not applied(loaded).any()
        weight = layer.get_base_layer().weight.detach().clone()
        assert torch.equal(model.merge_and_unload().proj.weight, weight)


def test_a_small_step_moves_every_number_in_bfloat16() -> None:
    """Beside T, most of a step of 1e-4 is lost to rounding."""
    model = model_with("quanta")
    cast(model)
    step = 1e-4
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    exact = applied(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            generator = torch.Generator().manual_seed(3)
            parameter.data += (step * torch.randn(parameter.shape, generator=generator)).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name in before:
            assert (parameter != before[name]).float().mean() > 0.99
    wide = model_with("quanta")
    for parameter in wide.parameters():
        if parameter.requires_grad:
            generator = torch.Generator().manual_seed(3)
            parameter.data += step * torch.randn(parameter.shape, generator=generator)
    assert (applied(model) - applied(wide)).norm() < 0.005 * (applied(wide) - exact).norm()


@pytest.mark.parametrize("name", ["quanta", "rotations"])
def test_weight_decay_pulls_towards_the_base_model(name: str) -> None:
    model = model_with(name)
    move(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5)
    norms = [applied(model).norm()]
    for _ in range(60):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        norms.append(applied(model).norm())
    assert all(after < before for before, after in itertools.pairwise(norms))
    assert norms[-1] < 0.1 * norms[0]


def test_none_stores_nothing_more(tmp_path: Path) -> None:
    model = model_with("lora")
    model.save_pretrained(str(tmp_path))
    keys = [key.partition("quanta_circuit_")[2] for key in load_file(tmp_path / "adapter_model.safetensors")]
    assert sorted(keys) == ["features", "gates.g0-A", "gates.g0-B"]


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
def test_a_copy_made_by_parameters_is_the_adapter(residual: str) -> None:
    """TRL makes the frozen reference of a loaded adapter so: S must come along, and a folded weight follow."""
    x = batch()
    model = adapted(Mlp(), residual=residual, init_seed=3)
    move(model, 0.05)
    for parameter in layer_of(model).quanta_circuit_frozen.parameters():
        parameter.data *= 1.5  # an S that no seed makes
    model.set_adapter("default")
    policy = model(x)
    model.add_adapter("ref", copy.deepcopy(model.peft_config["default"]))
    for name, parameter in list(model.named_parameters()):
        if ".default" in name:
            model.get_parameter(name.replace(".default", ".ref")).data.copy_(parameter.data)
    model.set_adapter("ref")
    assert torch.equal(model(x), policy)
    with model.disable_adapter():
        assert not torch.allclose(model(x), policy, atol=1e-2)


def test_what_a_layer_holds_is_parameters_and_only_the_difference_trains() -> None:
    model = model_with("mixed")
    assert [name for name, _ in model.named_buffers() if "quanta_circuit" in name] == []
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("quanta_circuit_delta.default." in name for name in trained)
    model.set_adapter("default")
    model.base_model.set_requires_grad("default")
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained


def test_half_precision_of_all_that_is_frozen_is_saved_exactly(tmp_path: Path) -> None:
    """`cast_mixed_precision_params` rounds what does not train, the layer's sizes as well."""
    from peft.utils import cast_mixed_precision_params

    net = nn.Sequential(nn.Linear(1001, 24))
    circuit = file_of({"auto": 3}, ["each"])
    model: Any = get_peft_model(net, QuantaConfig(circuit=circuit, target_modules=["0"]))
    cast_mixed_precision_params(model, torch.bfloat16)
    move(model)
    model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved["base_model.model.0.quanta_circuit_features"].tolist() == [1001, 24]
    loaded: Any = PeftModel.from_pretrained(nn.Sequential(nn.Linear(1001, 24)), str(tmp_path))
    update = layer_of(model).get_delta_weight("default")
    assert torch.equal(layer_of(loaded).get_delta_weight("default"), update)


# The folded weight is a snapshot


def folded_model() -> tuple[Any, Any]:
    model = adapted(Mlp(), residual="folded")
    move(model)
    return model, model.base_model.model


def as_copy(model: Any, like: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what the same adapter gives with both circuits applied to the base weights of now."""
    base = Mlp().to(x.dtype)
    base.load_state_dict(
        {key.replace(".base_layer", ""): t for key, t in like.state_dict().items() if "quanta" not in key}
    )
    other = adapted(base)
    state = {key: t for key, t in model.state_dict().items() if "quanta" in key}
    other.load_state_dict(state, strict=False)
    return other(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["in place", "past autograd", "assigned", "loaded", "optimizer"])
def test_a_folded_weight_follows_the_base_weight(how: str) -> None:
    x = batch()
    model, inner = folded_model()
    model(x)
    layer = inner.k_proj.base_layer
    if how == "in place":
        with torch.no_grad():
            layer.weight.mul_(1.5)
    elif how == "past autograd":
        layer.weight.data.add_(0.1)
    elif how == "assigned":
        layer.weight = nn.Parameter(layer.weight.detach() + 0.2, requires_grad=False)
    elif how == "loaded":
        layer.load_state_dict({"weight": layer.weight.detach() * 0.5})
    else:
        layer.weight.grad = torch.ones_like(layer.weight)
        torch.optim.SGD([layer.weight], lr=0.1).step()
    assert torch.allclose(model(x), as_copy(model, inner, x), atol=1e-5)


def test_a_folded_weight_is_not_one_of_before() -> None:
    """accelerate puts back the buffers of before FSDP2 has sent W and S to a process that had none."""
    x = batch()
    model, inner = folded_model()
    folded = inner.k_proj.quanta_circuit_folded["default"]
    folded.register_buffer("weight", torch.zeros_like(folded.weight), persistent=False)
    assert torch.allclose(model(x), as_copy(model, inner, x), atol=1e-5)


@pytest.mark.parametrize("width", [64, 256])
@pytest.mark.parametrize("how", ["a row", "other columns", "assigned", "loaded", "columns past autograd", "S"])
def test_a_folded_weight_follows_a_change_of_some_numbers(how: str, width: int) -> None:
    """The first column stays as it is: where widths are powers of two, even strides would see it alone."""
    circuit = file_of({"auto": 2}, ["all_pairs"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(width, width, bias=False))
    model: Any = get_peft_model(base, QuantaConfig(circuit=circuit, target_modules=["0"], residual="folded"))
    move(model)
    layer = layer_of(model)
    inner, frozen = layer.get_base_layer(), layer.quanta_circuit_frozen["default"]
    changed = inner.weight.detach().clone()
    changed[:, width // 2 :] *= 2
    with torch.no_grad():
        applied(model)
        if how == "a row":
            inner.weight[5, 1:].mul_(3)
        elif how == "other columns":
            inner.weight[:, 1:].mul_(3)
        elif how == "assigned":
            inner.weight = nn.Parameter(changed, requires_grad=False)
        elif how == "loaded":
            inner.load_state_dict({"weight": changed})
        elif how == "columns past autograd":
            inner.weight.data[:, 1:].mul_(2)
        else:
            frozen["g0"][:, 1:] += 0.3
    update = layer.get_delta_weight("default").double()
    assert (applied(model) - update).norm() < 1e-4 * update.norm()


def test_a_weight_folded_in_inference_mode_trains() -> None:
    x = batch()
    model, _ = folded_model()
    for layer in circuit_layers(model).values():
        layer.set_scale("default", 0.5)
    with torch.inference_mode():
        layer_of(model).get_base_layer().weight.mul_(1.5)
        model(x)
    model(x.requires_grad_()).sum().backward()


def test_a_base_weight_that_trains_gets_its_gradient() -> None:
    x = batch()
    model, inner = folded_model()
    weight = inner.q_proj.base_layer.weight.requires_grad_(True)
    with pytest.warns(UserWarning, match=r"q_proj: the base weight trains, so nothing is folded into it"):
        model(x).sum().backward()
    assert weight.grad is not None
    assert weight.grad.any()


def test_a_base_model_that_is_cast_later_is_folded_again() -> None:
    from peft.utils import cast_mixed_precision_params

    model, _ = folded_model()
    expected = model(batch())
    cast_mixed_precision_params(model, torch.bfloat16)
    x = batch(torch.bfloat16)
    assert torch.allclose(model(x).float(), expected, atol=0.05)
    assert torch.allclose(copy.deepcopy(model)(x).float(), expected, atol=0.05)
