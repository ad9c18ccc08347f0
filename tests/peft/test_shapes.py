"""One circuit for many shapes, several circuits for one model, and one plan for all layers of a shape."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers
from peft import get_peft_model
from random_circuits import file_of
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from quanta_compiler.models.targets import circuit_for
from quanta_compiler.nn import fit_circuit
from quanta_compiler.peft import QuantaConfig

EXAMPLES = Path(__file__).parents[2] / "examples"


def sizes(fitted: Any) -> list[int]:
    return [axis.size for axis in fitted.spec.layout]


def test_a_template_fits_itself_to_the_larger_side() -> None:
    document = file_of({"auto": 3}, ["all_pairs"])
    assert sizes(fit_circuit(document, 576, 192)) == [9, 8, 8]
    assert sizes(fit_circuit(document, 192, 576)) == [9, 8, 8]
    fitted = fit_circuit(document, 576, 1536)
    assert sizes(fitted) == [16, 12, 8]
    assert (fitted.in_features, fitted.out_features) == (576, 1536)


def test_a_layout_is_used_as_it_is_written_on_every_target() -> None:
    """Padded and truncated, as the code of the QuanTA paper does."""
    truncated = fit_circuit(file_of("16x8x8x8", ["all_pairs"]), 8192, 1024)
    assert sizes(truncated) == [16, 8, 8, 8]
    assert truncated.spec.out_features == 1024
    wide = fit_circuit(file_of("16x8x8x4", ["all_pairs"]), 4096, 11008)
    narrow = fit_circuit(file_of("16x8x8x4", ["all_pairs"]), 11008, 4096)
    tensors = narrow.draw(0)
    x = torch.randn(2, 11008)
    changed = x.clone()
    changed[:, 4096:] += 1
    assert torch.equal(narrow.apply(tensors, x), narrow.apply(tensors, changed))
    assert not wide.apply(wide.draw(0), x[:, :4096])[:, 4096:].any()


def test_rectangular_gates_are_those_of_the_file() -> None:
    fitted = fit_circuit(file_of("16x8x8x8", [{"pattern": "all_pairs", "to": {"0": 2}}]), 8192, 1024)
    assert not fitted.spec.warnings
    assert [axis.size for axis in fitted.spec.output] == [2, 8, 8, 8]


def test_layers_of_one_shape_share_one_plan() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Mlp(seed=seed) for seed in range(3))

    layers = circuit_layers(adapted(Deep()))
    plans = {id(layer.quanta_circuit_plan["default"]) for layer in layers.values()}
    assert len(layers) == 9
    assert len(plans) == 3


def test_a_7b_configuration_is_adapted_on_the_meta_device() -> None:
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model = get_peft_model(model, QuantaConfig(target_modules="all-linear"))
    layers = circuit_layers(model)
    assert len(layers) == 224
    assert len({id(layer.quanta_circuit_plan["default"]) for layer in layers.values()}) == 3
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_mapping_gives_each_target_its_own_circuit() -> None:
    circuits = {"q_proj": LORA, "[ko]_proj": str(EXAMPLES / "lora-r8.yaml"), r"o_proj": QUANTA}
    model = adapted(Mlp(), circuit=circuits, target_modules=None)
    names = {name[-6:]: layer.quanta_circuit_plan["default"].spec.name for name, layer in circuit_layers(model).items()}
    # `[ko]_proj` is longer than `o_proj`, and so the more specific.
    assert names == {"q_proj": "test", "k_proj": "lora-r8", "o_proj": "lora-r8"}
    assert torch.equal(model(batch()), Mlp()(batch()))


def test_patterns_are_matched_as_peft_matches_those_of_ranks() -> None:
    circuits: dict[str, Any] = {"q_proj": "q", r"layers\.[01]\.self_attn\.q_proj": "early", "proj": "never"}
    assert circuit_for(circuits, "model.layers.1.self_attn.q_proj") == "early"
    assert circuit_for(circuits, "model.layers.2.self_attn.q_proj") == "q"
    assert circuit_for(circuits, "q_proj") == "q"
    with pytest.raises(ValueError, match="none of the circuits is for it"):
        circuit_for(circuits, "model.layers.2.self_attn.k_proj")
    with pytest.raises(ValueError, match=r"'\._proj' and for 'q_pro\.' both match"):
        circuit_for({"q_pro.": "a", "._proj": "b"}, "layers.0.q_proj")


def test_padding_is_told_once_for_each_shape() -> None:
    config = QuantaConfig(circuit={**QUANTA, "name": "told"}, target_modules=["q_proj", "k_proj"])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            get_peft_model(Mlp(), config)
    messages = [str(warning.message) for warning in told if "circuit 'told'" in str(warning.message)]
    assert messages == [
        "circuit 'told' on layers with 24 -> 16 features: out_features 16 keeps 16 of 24 outputs: "
        "33.3% of what the circuit computes is dropped\nhint: `to: [4, 2]` at gate 'g2' makes 16 outputs"
    ]


def test_what_a_template_wastes_is_told_where_it_finds_no_layout() -> None:
    template = file_of({"auto": 4}, ["all_pairs"])
    assert not fit_circuit(template, 576, 1536).spec.warnings
    padded = fit_circuit(template, 4096, 11008).spec.warnings
    assert [warning.message for warning in padded] == [
        "11008 is padded to 11088 (14x11x9x8): 80 of 11088 numbers (0.722%) are zeros"
    ]


def test_threads_may_compile_the_same_circuit_at_once() -> None:
    from quanta_compiler.driver import compile_circuit
    from quanta_compiler.runtime.loading import load_class

    sources = [compile_circuit(file_of(f"{size}x3", ["each"], name=f"race{size}")).source for size in range(2, 12)]
    found: list[Any] = []

    def load() -> None:
        found.extend(load_class(source) for source in sources)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert len({id(circuit_class) for circuit_class in found}) == 10
