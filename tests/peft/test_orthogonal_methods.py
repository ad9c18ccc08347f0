"""The presets `oft` and `boft` before a layer against PEFT's own OFT and BOFT, with the same numbers."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

import peft.tuners.boft.layer as boft_layer
import pytest
import torch
from adapted_models import adapted
from peft import BOFTConfig, OFTConfig, get_peft_model
from torch import nn

from quanta_compiler.peft import QuantaConfig

WIDTH = 64


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(WIDTH, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


def ours(base: nn.Module, preset: str, numbers: list[torch.Tensor]) -> Any:
    """Our adapter with the gates' numbers, in the order of the file."""
    model = adapted(copy.deepcopy(base), circuit=None, preset=preset, placement="input", target_modules=["proj"])
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [parameter.numel() for parameter in own] == [tensor.numel() for tensor in numbers]
    with torch.no_grad():
        for parameter, tensor in zip(own, numbers, strict=True):
            parameter.copy_(tensor.reshape(parameter.shape))
    return model


def orthogonality(layer: Any) -> float:
    fitted = layer.quanta_circuit_plan["default"]
    operator = fitted.apply(layer.circuits("default")[0], torch.eye(WIDTH)).detach().double()
    return float((operator @ operator.T - torch.eye(WIDTH)).abs().max())


@pytest.mark.parametrize("size", [4, 16, 64])
def test_oft_is_that_of_peft(size: int) -> None:
    base, x = Model(), torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    found: dict[bool, Any] = {}
    for is_series in (False, True):
        config = OFTConfig(
            oft_block_size=size, use_cayley_neumann=is_series, target_modules=["proj"], r=0, init_weights=False
        )
        torch.manual_seed(0)
        found[is_series] = get_peft_model(copy.deepcopy(base), config)
    theirs: Any = found[False]
    (numbers,) = [parameter.detach() for parameter in theirs.parameters() if parameter.requires_grad]
    numbers.normal_(0, 0.3)
    model = ours(base, f"oft:{WIDTH // size}", [-2 * numbers])
    assert torch.allclose(model(x), theirs(x), atol=1e-5)
    layer: Any = model.base_model.model.proj
    ours_merged, theirs_merged = (copy.deepcopy(one).merge_and_unload().proj.weight for one in (model, theirs))
    assert torch.allclose(ours_merged, theirs_merged, atol=1e-5)
    assert orthogonality(layer) < 1e-6
    # PEFT's default is a series of five terms, which is orthogonal for small numbers only.
    series: Any = found[True].base_model.model.proj
    series.oft_R["default"].weight.data.copy_(numbers)
    turned = series.oft_R["default"](torch.eye(WIDTH)).detach()
    assert float((turned @ turned.T - torch.eye(WIDTH)).abs().max()) > 0.1


@pytest.mark.parametrize(("blocks", "factors"), [(4, 1), (4, 2), (16, 2)])
def test_boft_is_that_of_peft(blocks: int, factors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blocks:
        """What PEFT's CUDA extension computes; without it PEFT has one factor, whatever is asked for."""

        @staticmethod
        def apply(matrices: torch.Tensor) -> torch.Tensor:
            block_diagonal: Any = torch.block_diag
            return torch.stack([block_diagonal(*factor) for factor in matrices])

    monkeypatch.setattr(boft_layer, "get_fbd_cuda", lambda: True)
    monkeypatch.setattr(boft_layer, "FastBlockDiag", Blocks)
    base, x = Model(), torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    config = BOFTConfig(
        boft_block_num=blocks, boft_block_size=0, boft_n_butterfly_factor=factors, target_modules=["proj"]
    )
    theirs: Any = get_peft_model(copy.deepcopy(base), config)
    layer = theirs.base_model.model.proj
    matrices = layer.boft_R["default"].data.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    size = WIDTH // blocks
    # PEFT makes them skew-symmetric by half; the circuit has what is below the diagonal, column by column.
    columns, rows = torch.triu_indices(size, size, 1)
    skew = matrices - matrices.mT
    numbers = [factor[:, rows, columns] for factor in skew.flip(0)]
    model = ours(base, f"boft:blocks={blocks},factors={factors}", numbers)
    assert torch.allclose(model(x), theirs(x), atol=1e-5)
    assert orthogonality(model.base_model.model.proj) < 1e-6
    counts = [sum(p.numel() for p in one.parameters() if p.requires_grad) for one in (model, theirs)]
    # PEFT stores whole matrices of which it uses a half, and a factor for every output.
    assert counts == [factors * blocks * size * (size - 1) // 2, factors * blocks * size * size + 24]


@pytest.mark.parametrize("preset", ["oft:4", "boft:4", "gsoft:4"])
def test_beside_the_layer_they_are_another_method_which_is_said(preset: str) -> None:
    family = preset.partition(":")[0]
    with pytest.warns(
        UserWarning, match=rf"preset '{family}' is beside the layer .*{family.upper()}.*\nhint: .*'input'"
    ):
        config = QuantaConfig(preset=preset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QuantaConfig(preset=preset, placement="input")
        QuantaConfig(preset=preset, placement="output")
        dataclasses.replace(config)
    circuit = {
        "q_proj": {"version": 1, "name": "a", "preset": family},
        "k_proj": {"version": 1, "name": "b", "preset": "lora"},
    }
    with pytest.warns(UserWarning, match=f"preset '{family}' is beside the layer"):
        QuantaConfig(circuit=circuit)
