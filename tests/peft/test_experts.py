"""Circuits on the experts of a mixture: one per expert, in one batch; trained, saved, merged and taken off again."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import circuit_layers
from moe_models import STORED_AS_LINEAR, TOKENS, TRANSPOSED, mixture, tensors_of
from peft import LoraConfig, PeftModel, get_peft_model
from random_circuits import error, file_of
from torch import nn

import quanta_compiler as qc
from quanta_compiler.nn import fit_circuit
from quanta_compiler.peft import AdapterError, QuantaCircuitExperts, QuantaConfig
from quanta_compiler.peft.experts import ExpertCircuits

IDENTITY = {"version": 1, "name": "turned", "layout": {"auto": 3}, "gates": ["all_pairs"], "init": "identity"}
HOW: dict[str, dict[str, Any]] = {
    "frozen_copy": {"circuit": {**IDENTITY, "init": "orthogonal"}, "residual": "frozen_copy", "scale": 0.5},
    "none": {"preset": "lora:3"},
    "identity": {"circuit": file_of(24, [{"axes": [0], "kind": "orthogonal"}]), "residual": "identity"},
    "input": {"circuit": IDENTITY, "placement": "input", "scale": 1.5},
    "output": {"circuit": IDENTITY, "placement": "output"},
}
MIXTURES = (*STORED_AS_LINEAR, *TRANSPOSED)


def experts_of(model: nn.Module) -> dict[str, QuantaCircuitExperts]:
    """Return what holds the adapters on tensors of experts, by the name of the tensor."""
    found = [layer for layer in circuit_layers(model).values() if isinstance(layer, QuantaCircuitExperts)]
    return {layer._layer_name: layer for layer in found if layer.quanta_circuit_plan}


def with_circuits(name: str, how: str = "none", **keys: Any) -> Any:
    """Return a mixture with an adapter on its experts and its queries; on the square ones where it has to be."""
    ends = ["experts.down_proj"] if how == "identity" else ["experts.down_proj", "experts.gate_up_proj"]
    config = {"target_modules": ["q_proj"], "target_parameters": ends, "task_type": "CAUSAL_LM", **HOW[how], **keys}
    return get_peft_model(mixture(name), QuantaConfig(**config)).eval()


def trained(model: Any, steps: int = 3) -> Any:
    """Take a few steps, after which everything that trains has had a gradient."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in parameters)
    return model.eval()


def test_experts_on_the_meta_device_have_no_numbers_to_check() -> None:
    config = QuantaConfig(preset="lora:2", target_parameters=["experts.down_proj"], target_modules=[])
    model: Any = get_peft_model(mixture("qwen3_moe", "meta"), config)
    name = r"^model\.layers\.0\.mlp\.experts\.down_proj: its weight is on the meta device"
    with pytest.raises(AdapterError, match=name):
        model.merge_adapter(safe_merge=True)


@torch.no_grad()
def outputs(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(TOKENS).logits
    return logits


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_trained_saved_loaded_and_merged(name: str, how: str, tmp_path: Path) -> None:
    base = outputs(mixture(name))
    model = with_circuits(name, how)
    assert torch.equal(outputs(model), base)
    y = outputs(trained(model))
    assert error(y, base) > 1e-3
    with model.disable_adapter():
        assert torch.equal(outputs(model), base)
    model.save_pretrained(tmp_path)
    for keys in ({}, {"low_cpu_mem_usage": True}, {"adapter_name": "other"}):
        assert torch.equal(outputs(PeftModel.from_pretrained(mixture(name), tmp_path, **keys).eval()), y)
    assert torch.equal(outputs(copy.deepcopy(model)), y)
    assert torch.equal(outputs(pickle.loads(pickle.dumps(model))), y)
    model.merge_adapter(safe_merge=True)
    assert error(outputs(model), y) < 1e-6
    with model.disable_adapter():
        assert error(outputs(model), base) < 1e-5
    model.merge_adapter()
    model.unmerge_adapter()
    assert error(outputs(model), y) < 1e-5
    merged = model.merge_and_unload()
    assert error(outputs(merged), y) < 1e-5
    assert list(merged.state_dict()) == list(mixture(name).state_dict())
    assert error(outputs(with_circuits(name, how).unload()), base) == 0


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_each_expert_has_the_circuit_of_its_own_numbers(name: str, how: str) -> None:
    model: Any = trained(with_circuits(name, how))
    plain, before = mixture(name), outputs(mixture(name))
    tensors = tensors_of(plain)
    for tensor_name, layer in experts_of(model).items():
        delta = layer.get_delta_weight("default")
        assert delta.shape == tensors[tensor_name].shape
        circuits: Any = layer.quanta_circuit_plan["default"]
        pair = [part for part in layer.circuits("default") if part is not None]
        for expert in range(layer.experts):
            own = [
                _oracle(circuits.fitted, {key: tensor[expert] for key, tensor in circuits._short(part).items()})
                for part in pair
            ]
            weight = tensors[tensor_name][expert].detach().double()
            weight = weight.T if name in TRANSPOSED else weight
            update = own[0] - own[1] if len(own) == 2 else own[0]
            if how == "identity":
                update = update - torch.eye(24)
            elif how == "input":
                update = weight @ update - weight
            elif how == "output":
                update = update @ weight - weight
            update = layer.quanta_circuit_scale["default"] * update
            assert error(delta[expert].T if name in TRANSPOSED else delta[expert], update) < 1e-5
        tensors[tensor_name].data += delta
    base_model: Any = model.base_model
    base_model.disable_adapter_layers()
    experts: Any
    for experts in experts_of(model).values():
        experts.enable_adapters(True)
    assert error(outputs(plain), before) > 1e-3
    assert error(outputs(model), outputs(plain)) < 1e-6


def _oracle(fitted: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the operator of one circuit by the slow obvious way, in float64."""
    module = qc.compile_circuit(fitted.spec).module(dtype=torch.float64)
    names = {key.removeprefix("gates.").replace(".", "-"): parameter for key, parameter in module.named_parameters()}
    for name, parameter in names.items():
        parameter.data = tensors[name].detach().double()
    return qc.reference_operator(module)


@pytest.mark.parametrize("how", HOW)
def test_an_update_is_the_same_while_it_is_merged(how: str) -> None:
    model = trained(with_circuits("gpt_oss", how))
    before = {name: layer.get_delta_weight("default") for name, layer in experts_of(model).items()}
    model.merge_adapter()
    for name, layer in experts_of(model).items():
        assert error(layer.get_delta_weight("default"), before[name]) < 1e-5


@pytest.mark.parametrize("how", HOW)
def test_autocast_rounds_no_parameter_as_an_adapter_is_merged_and_taken_out(how: str) -> None:
    model, plain = trained(with_circuits("gpt_oss", how)), tensors_of(mixture("gpt_oss"))
    with torch.autocast("cpu", torch.bfloat16):
        model.merge_adapter()
        with model.disable_adapter():
            model(TOKENS)
    for name, tensor in tensors_of(model).items():
        assert error(tensor, plain[name.removeprefix("base_model.model.")]) < 1e-5


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_low_rank_circuits_are_the_lora_of_peft(name: str) -> None:
    ends = ["experts.down_proj", "experts.gate_up_proj"]
    ours = trained(with_circuits(name, target_modules=[]))
    base = mixture(name)
    for module in base.modules():
        if hasattr(module, "gate_up_proj"):
            # PEFT asks the experts, and transformers 4 does not say.
            module.is_transposed = name in TRANSPOSED
    lora: Any = get_peft_model(base, LoraConfig(r=3, lora_alpha=3, target_modules=[], target_parameters=ends)).eval()
    wrappers: dict[str, Any] = {
        f"{key.removeprefix('base_model.model.').replace('.base_layer', '')}.{module.parameter_name}": module
        for key, module in lora.named_modules()
        if type(module).__name__ == "ParamWrapper"
    }
    assert set(wrappers) == set(experts_of(ours))
    for tensor, layer in experts_of(ours).items():
        wrapper = wrappers[tensor]
        own = {name.rpartition("-")[2]: part for name, part in layer.circuits("default")[0].items()}
        # Theirs are `[rank * experts, in]`, experts first, and `[out, rank * experts]`, experts last.
        wrapper.lora_A["default"].weight.data = own["A"].detach().flatten(0, 1)
        wrapper.lora_B["default"].weight.data = own["B"].detach().permute(1, 2, 0).flatten(1)
    assert error(outputs(ours), outputs(lora)) < 1e-6
    numbers = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, lora)]
    assert numbers[0] == numbers[1]


KINDS: list[dict[str, Any]] = [
    *({"axes": [0, 1], "kind": "orthogonal", "map": way} for way in ("exp", "cayley", "taylor", "neumann")),
    *({"axes": [0, 1], "kind": "orthogonal", "map": way} for way in ("householder", "givens")),
    {"axes": [0, 1], "kind": "pauli", "layers": 2},
    {"axes": [0], "kind": "orthogonal", "per": [1]},
    {"axes": [0, 1], "kind": "lowrank", "rank": 2},
    {"axes": [1], "kind": "diagonal"},
]


@pytest.mark.parametrize("gate", KINDS, ids=lambda gate: "-".join(map(str, gate.values())))
def test_circuits_of_every_kind_are_built_in_one_batch_with_the_numbers_of_one_by_one(gate: dict[str, Any]) -> None:
    fitted = fit_circuit(file_of("4x6", [gate, [1]]), 24, 20)
    stacked = ExpertCircuits(fitted, 3, "down_proj")
    tensors = {name: tensor.float().requires_grad_(True) for name, tensor in stacked.draw_apart().items()}
    operators = stacked.operators(tensors)
    short = stacked._short(tensors)
    each = torch.stack([fitted.operator({name: part[expert] for name, part in short.items()}) for expert in range(3)])
    assert operators.shape == (3, 20, 24)
    assert error(operators, each) < 1e-6
    found = torch.autograd.grad(operators.pow(3).sum(), list(tensors.values()))
    expected = torch.autograd.grad(each.pow(3).sum(), list(tensors.values()))
    assert all(error(one, other) < 1e-5 for one, other in zip(found, expected, strict=True))


def test_adapters_of_several_sets_of_experts_stand_beside_each_other(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    alone = trained(with_circuits("qwen3_moe", target_parameters=["experts.down_proj"]))
    alone.save_pretrained(one)
    both = trained(with_circuits("qwen3_moe", "frozen_copy"))
    both.save_pretrained(other)
    model = PeftModel.from_pretrained(mixture("qwen3_moe"), one, adapter_name="one")
    model.load_adapter(other, "other")
    assert error(outputs(model), outputs(alone)) == 0
    model.set_adapter("other")
    assert error(outputs(model), outputs(both)) == 0
    model.base_model.set_adapter(["one", "other"])
    y = outputs(model)
    model.merge_adapter(["one", "other"])
    assert error(outputs(model), y) < 1e-6
    model.unmerge_adapter()
    model.delete_adapter("one")
    model.set_adapter("other")
    assert error(outputs(model), outputs(both)) < 1e-6
    assert not any(".one." in key for key in model.state_dict())
    model.delete_adapter("other")
    assert not any("quanta_circuit_" in key for key in model.state_dict())
    assert error(outputs(model.base_model), outputs(mixture("qwen3_moe"))) < 1e-5


@pytest.mark.parametrize("name", ["qwen2_moe", "gpt_oss"])
@pytest.mark.parametrize("how", HOW)
def test_the_start_is_exact_in_bfloat16_and_merging_rounds_as_the_forward_pass_does(name: str, how: str) -> None:
    ends = ["experts.down_proj"]
    config = QuantaConfig(target_modules=[], target_parameters=ends, **{**HOW[how], "scale": 1.0})
    base = mixture(name).bfloat16()
    before = outputs(base)
    model = get_peft_model(base, config).eval()
    assert torch.equal(outputs(model), before)
    y = outputs(trained(model))
    assert not torch.equal(y, before)
    model.merge_adapter()
    assert torch.equal(outputs(model), y)
    assert all(layer.compute_dtype("default") == torch.float32 for layer in experts_of(model).values())


@pytest.mark.parametrize("how", ["none", "frozen_copy", "input"])
def test_recomputing_and_checkpointing_change_no_number(how: str) -> None:
    plain, again = (with_circuits("mixtral", how, recompute=recompute) for recompute in (False, True))
    checkpointed = with_circuits("mixtral", how)
    checkpointed.gradient_checkpointing_enable()
    checkpointed.enable_input_require_grads()
    found = []
    for model in (plain, again, checkpointed):
        model.train()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_weights_that_train_get_their_gradient_through_the_circuits() -> None:
    model = with_circuits("mixtral", "frozen_copy")
    weight = next(parameter for key, parameter in tensors_of(model).items() if key.endswith("down_proj"))
    weight.requires_grad_(True)
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    plain = mixture("mixtral")
    plain(input_ids=TOKENS, labels=TOKENS).loss.backward()
    expected = next(parameter for key, parameter in tensors_of(plain).items() if key.endswith("down_proj"))
    assert weight.grad is not None
    assert expected.grad is not None
    assert error(weight.grad, expected.grad) < 1e-5


def test_a_merge_that_is_not_finite_changes_nothing() -> None:
    model = with_circuits("mixtral")
    layer = next(iter(experts_of(model).values()))
    next(iter(layer._holder("default").parameters())).data[1] = torch.nan
    before = [tensor.clone() for tensor in tensors_of(model).values()]
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        layer.merge(safe_merge=True)
    assert all(torch.equal(old, new) for old, new in zip(before, tensors_of(model).values(), strict=True))
    assert not layer.merged


def test_every_expert_begins_with_numbers_of_its_own_and_a_seed_means_the_same() -> None:
    drawn = [
        [
            tensor
            for layer in experts_of(with_circuits("mixtral", "frozen_copy")).values()
            for tensor in layer.parameters()
        ]
        for _ in range(2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))
    copies = [
        tensor
        for layer in experts_of(with_circuits("mixtral", "frozen_copy")).values()
        for tensor in layer.quanta_circuit_frozen["default"].parameters()
    ]
    assert all(tensor.shape[0] == 4 and not torch.equal(tensor[0], tensor[1]) for tensor in copies)


def test_damaged_and_foreign_weights_of_experts_are_refused(tmp_path: Path) -> None:
    model = with_circuits("mixtral")
    state = {key: tensor for key, tensor in model.state_dict().items() if "quanta_circuit_" in key}
    key = next(key for key in state if "gate_up_proj" in key)
    with pytest.raises(AdapterError, match=r"is saved as \[3, .*\], the circuit needs \[4, "):
        model.load_state_dict({**state, key: state[key][:3]}, strict=False)
    with pytest.raises(AdapterError, match="holds NaN"):
        model.load_state_dict({**state, key: state[key] * torch.nan}, strict=False)
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="the saved adapter does not fit the model"):
        PeftModel.from_pretrained(mixture("qwen2_moe"), tmp_path)
