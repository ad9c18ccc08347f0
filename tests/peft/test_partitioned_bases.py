"""Adapters beside weights that DeepSpeed keeps in parts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, adapted, batch, circuit_layers
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.peft import AdapterError

NOT_FOLDED = r"`residual='folded'` puts a weight in the place of the layer, and {}\nhint: take `frozen_copy`"


class Gathered:
    """Stands for DeepSpeed: gives parameters their values back, and takes them away again."""

    DEPTH = "_ds_z3_gathered_param_context_depth"

    def __init__(self) -> None:
        self.values: dict[int, torch.Tensor] = {}
        self.external: list[Any] = []
        self.zero = SimpleNamespace(GatheredParameters=self.gather, register_external_parameter=self.register)

    def partition(self, parameter: Any) -> None:
        parameter.ds_shape, parameter.ds_id = parameter.shape, id(parameter)
        parameter.all_gather = lambda: self.give(parameter)
        self.take(parameter)

    def take(self, parameter: Any) -> None:
        self.values[parameter.ds_id] = parameter.data
        parameter.data, parameter.ds_status = torch.empty(0), SimpleNamespace(name="NOT_AVAILABLE")

    def give(self, parameter: Any) -> None:
        parameter.data, parameter.ds_status = self.values[parameter.ds_id], SimpleNamespace(name="AVAILABLE")

    def register(self, module: nn.Module, parameter: Any) -> None:
        self.external.append((module, parameter))

    @contextlib.contextmanager
    def gather(self, parameters: list[Any], modifier_rank: int | None = None) -> Iterator[None]:
        if any(getattr(parameter, self.DEPTH, 0) for parameter in parameters):
            raise RuntimeError("Nested GatheredParameters contexts cannot overlap parameters")
        for parameter in parameters:
            self.give(parameter)
            setattr(parameter, self.DEPTH, 1)
        yield
        for parameter in parameters:
            assert modifier_rank == 0 or torch.equal(parameter.data, self.values[parameter.ds_id])
            self.take(parameter)
            setattr(parameter, self.DEPTH, 0)


def test_partitioned_layers_have_their_sizes_and_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    deepspeed = Gathered()
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    base: Any = nn.ModuleDict({"linear": nn.Linear(24, 16, bias=False), "conv": Conv1D(24, 16)})
    weights = {name: layer.weight.detach().clone() for name, layer in base.items()}
    for layer in base.values():
        deepspeed.partition(layer.weight)
    for name in weights:
        with pytest.raises(
            AdapterError, match=f"{name}: " + NOT_FOLDED.format(r"DeepSpeed has partitioned its weight \(ZeRO-3\)")
        ):
            adapted(base, target_modules=[name], residual="folded")
    model = adapted(base, target_modules=list(weights), init_weights=False)
    layers = circuit_layers(model)
    assert [(layer.in_features, layer.out_features) for layer in layers.values()] == [(24, 16), (16, 24)]
    for (name, weight), layer in zip(weights.items(), layers.values(), strict=True):
        whole = layer.get_delta_weight("default")
        own = [parameter for key, parameter in layer.named_parameters() if "quanta_circuit" in key]
        for parameter in own:
            deepspeed.partition(parameter)
        assert torch.equal(layer.get_delta_weight("default"), whole)
        layer.merge()
        assert base[name].get_base_layer().weight.shape == (0,)
        torch.testing.assert_close(deepspeed.values[id(base[name].get_base_layer().weight)], weight + whole)
        layer.unmerge()
        torch.testing.assert_close(deepspeed.values[id(base[name].get_base_layer().weight)], weight)
        spread = [parameter for parameter in layer.parameters() if hasattr(parameter, "ds_id")]
        with deepspeed.gather(spread, modifier_rank=0):  # as TRL merges
            layer.merge()
        torch.testing.assert_close(deepspeed.values[id(base[name].get_base_layer().weight)], weight + whole)
        layer.unmerge()
        # DeepSpeed gathers the weight of a layer that it calls; what circuits are made of it is told of.
        deepspeed.give(layer.get_base_layer().weight)
        x = batch(width=layer.in_features)
        expected = x @ (weight + whole).T if name == "linear" else x @ (weight + whole) + layer.get_base_layer().bias
        torch.testing.assert_close(layer(x), expected)
        assert [(module, id(one)) for module, one in deepspeed.external] == [(layer, id(one)) for one in own]
        deepspeed.external.clear()


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["frozen_copy", "none", "shared"])
def test_deepspeed_trains_partitioned_layers_as_one_process_does(residual: str) -> None:
    pytest.importorskip("deepspeed")
    here = Path(__file__).parent
    paths = [os.environ.get("PYTHONPATH", ""), str(here.parents[1]), str(here.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    environment |= {"DS_ACCELERATOR": "cpu", "WORLD_SIZE": "2", "LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": str(29500 + os.getpid() % 1000)}
    command = [sys.executable, str(here / "distributed" / "train_zero3.py"), residual]
    processes = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output[-6000:]
    finally:
        for process in processes:
            process.kill()


def test_a_partitioned_weight_needs_no_circuit_of_its_own() -> None:
    # The sizes of a layer are those that it was made with, whatever its weight looks like now.
    layer: Any = Conv1D(24, 16)
    layer.weight.ds_shape, layer.weight.data = layer.weight.shape, torch.empty(0)
    model = adapted(nn.ModuleDict({"a": layer}), circuit=QUANTA, target_modules=["a"])
    assert model.base_model.model["a"].quanta_circuit_plan["default"].out_features == 24
