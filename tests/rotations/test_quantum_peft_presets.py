"""Quantum-PEFT's presets: their numbers, and how they train from where they begin, s first, then the angles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quanta_compiler import compile_circuit, load_spec
from quanta_compiler.spec.short_notation import preset_document

WIDTHS = [(48, 32), (32, 32)]
"""One pair with angles that turn pairs, and one of a power of two."""


def module_of(preset: str, shape: tuple[int, int]) -> Any:
    spec = load_spec(preset_document(preset), in_features=shape[0], out_features=shape[1])
    return compile_circuit(spec).module(seed=0, backend="torch")


def fitted(module: Any, target: torch.Tensor, steps: int = 80) -> float:
    """Return the relative error after so many steps, those of Adam, from the module's own start."""
    start = module.operator().detach()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    error = torch.ones(())
    for _ in range(steps):
        optimizer.zero_grad()
        error = (module.operator() - start - target).square().sum() / target.square().sum()
        error.backward()
        optimizer.step()
    return float(error.detach())


@pytest.mark.parametrize(
    ("width", "low_rank", "full"), [(768, 350 + 350 + 8, 350), (1024, 28 + 28 + 8, 28), (4096, 34 + 34 + 8, 34)]
)
def test_parameters_on_square_layers(width: int, low_rank: int, full: int) -> None:
    counts = {"quantum_peft:8": low_rank, "quantum_peft_full": full}
    for text, count in counts.items():
        assert compile_circuit(load_spec(preset_document(text), in_features=width)).report.parameters.trainable == count


@pytest.mark.parametrize("shape", WIDTHS, ids=str)
@pytest.mark.parametrize("preset", ["quantum_peft:4", "quantum_peft_full"])
def test_an_update_of_the_family_is_fitted_from_the_default_start(preset: str, shape: tuple[int, int]) -> None:
    other = module_of(preset, shape)
    start = other.operator().detach()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    target = other.operator().detach() - start
    assert fitted(module_of(preset, shape), target) < 0.2


def test_the_first_step_moves_the_diagonal_and_the_second_the_angles() -> None:
    module = module_of("quantum_peft:4", (48, 32))
    target = torch.randn(32, 48, generator=torch.Generator().manual_seed(2))
    assert module.operator().abs().max() == 0
    fitted(module, target, steps=1)
    assert module.gates["s"].abs().min() > 0
    assert all(module.gates[name].abs().max() == 0 for name in ("U", "V"))
    fitted(module, target, steps=2)
    assert all(module.gates[name].abs().max() > 0 for name in ("U", "V"))
