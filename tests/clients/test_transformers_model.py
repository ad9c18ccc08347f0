"""transformers' `from_pretrained` of a model that contains emitted modules: made on meta, filled from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from transformers import PretrainedConfig, PreTrainedModel

import quanta_compiler as qc

pytestmark = pytest.mark.slow

ONES = {"axes": [0], "kind": "constant", "value": [[2, 1, 1, 1]] * 4}
CUT = {"axes": [0], "to": [2], "kind": "slice"}
TURN: dict[str, Any] = {"axes": [1], "kind": "constant", "value": [[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 2]]}
CIRCUITS: dict[str, dict[str, Any]] = {
    "constants": {
        "layout": "4x3",
        "gates": [[0, 1], TURN, ONES],
    },
    "padded": {"layout": "3x3x2", "in_features": 16, "out_features": 12, "gates": ["all_pairs", {**TURN, "axes": [0]}]},
    "signs": {"layout": "2x2x2", "gates": [{"pattern": "two_design", "layers": 2}]},
    "rotations": {
        "layout": "6x5",
        "gates": [
            {"axes": [0], "kind": "pauli", "layers": 2, "init": "normal"},
            {"axes": [1], "kind": "orthogonal", "map": "cayley", "init": "normal"},
            {"axes": [0, 1], "kind": "orthogonal", "init": "normal", "rank_parameters": 4},
        ],
    },
    "blocks": {"layout": "4x4", "gates": [{"axes": [0], "per": [1]}, {"axes": [1], "kind": "diagonal"}, [0]]},
    "slices": {
        "layout": "4x4",
        "gates": [CUT, [0, 1], {"axes": [0], "to": [5], "kind": "slice"}],
    },
}
"""Something of everything that an emitted module holds beside its parameters."""


class CircuitsConfig(PretrainedConfig):  # type: ignore[misc]
    """The configuration of a model of circuits."""

    model_type = "circuits"


class CircuitsModel(PreTrainedModel):  # type: ignore[misc]
    """A model of emitted modules alone, each with inputs of its own."""

    config_class = CircuitsConfig

    def __init__(self, config: CircuitsConfig) -> None:
        super().__init__(config)
        compiled = {
            name: qc.compile_circuit({"version": 1, "name": name, **circuit}) for name, circuit in CIRCUITS.items()
        }
        self.circuits = torch.nn.ModuleDict({name: circuit.module(seed=3) for name, circuit in compiled.items()})
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave modules as they draw themselves."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: circuit(x[..., : circuit.in_features]) for name, circuit in self.circuits.items()}


@pytest.fixture(scope="module")
def model() -> CircuitsModel:
    """Return the model with parameters that no seed of the module gives."""
    torch.manual_seed(1)
    result = CircuitsModel(CircuitsConfig())
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return result


def loaded(folder: Path, how: str) -> Any:
    """Return the saved model as one of the libraries loads it."""
    if how == "dispatch":
        with init_empty_weights(include_buffers=True):
            empty = CircuitsModel(CircuitsConfig())
        return load_checkpoint_and_dispatch(empty, str(folder), device_map={"": "cpu"})
    keys: dict[str, Any] = {
        "from_pretrained": {},
        "device_map": {"device_map": "cpu"},
        "bfloat16": {"dtype": torch.bfloat16},
    }
    return CircuitsModel.from_pretrained(folder, **keys[how])


@pytest.mark.parametrize("how", ["from_pretrained", "device_map", "dispatch", "bfloat16"])
def test_a_loaded_model_computes_what_the_saved_one_does(model: CircuitsModel, tmp_path: Path, how: str) -> None:
    model.save_pretrained(tmp_path)
    again = loaded(tmp_path, how)
    tolerance = 0.05 if how == "bfloat16" else 1e-6
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(2))
    outputs, expected = again(x.to(next(again.parameters()).dtype)), model(x)
    original: Any = model.circuits
    for name, circuit in again.circuits.items():
        assert not any(tensor.is_meta for tensor in [*circuit.parameters(), *circuit.buffers()])
        assert distance(outputs[name], expected[name]) < tolerance, name
        assert distance(circuit.operator(), original[name].operator()) < tolerance, name
        circuit.operator().float().square().sum().backward()
        assert all(parameter.grad is not None for parameter in circuit.parameters()), name


def distance(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((result - expected).norm() / expected.norm()).detach())
