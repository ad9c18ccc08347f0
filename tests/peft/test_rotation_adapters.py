"""Circuits of rotations as adapters: exact at the start, trained, merged, saved and analyzed as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import Mlp, adapted, batch, circuit_layers, train
from peft import PeftModel
from random_circuits import file_of

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.nn import fit_circuit

ANGLES = {"scheme": "normal", "std": 0.5}
U_DIAG_V = file_of(
    {"x": 24},
    [
        {"axes": ["x"], "kind": "pauli", "to": {"r": 3}, "init": ANGLES},
        {"axes": ["r"], "kind": "diagonal", "init": "zeros"},
        {"axes": ["r"], "kind": "orthogonal", "map": "cayley", "to": {"y": 24}, "init": ANGLES},
    ],
)
SQUARE = file_of(
    {"a": 2, "b": 12},
    [
        {"axes": ["a"], "kind": "ry", "per": ["b"]},
        {"axes": ["b"], "kind": "pauli", "layers": 2},
        {"axes": ["a", "b"], "kind": "cz"},
        {"axes": ["a", "b"], "kind": "orthogonal", "rank_parameters": 2, "init": ANGLES},
    ],
)
CASES: dict[str, tuple[dict[str, Any], str]] = {"U diag V": (U_DIAG_V, "none"), "square": (SQUARE, "frozen_copy")}


def test_a_rotation_at_zero_is_no_operator_at_zero() -> None:
    """`init: zeros` is the identity there: only the diagonal makes an update that needs no frozen copy."""
    assert fit_circuit(U_DIAG_V, 24, 24).starts_at_zero
    assert not fit_circuit(SQUARE, 24, 24).starts_at_zero
    assert not fit_circuit(file_of("24", [{"axes": [0], "kind": "pauli", "init": "zeros"}]), 24, 24).starts_at_zero


def test_what_is_drawn_apart_is_neither_zero_nor_the_start() -> None:
    fitted = fit_circuit(SQUARE, 24, 24)
    apart, start = fitted.draw_apart(), fitted.draw(0)
    unit = torch.eye(24)
    assert set(apart) == set(fitted.trained)
    assert float((fitted.apply({**start, **apart}, unit) - fitted.apply(start, unit)).norm()) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_adapted_model_begins_as_the_base_model(case: str, dtype: torch.dtype) -> None:
    circuit, residual = CASES[case]
    x = batch(dtype)
    model = adapted(Mlp(dtype), circuit=circuit, target_modules=["q_proj"])
    assert [layer.quanta_circuit_residual["default"] for layer in circuit_layers(model).values()] == [residual]
    assert torch.equal(model(x), Mlp(dtype)(x))


@pytest.mark.parametrize("case", CASES)
def test_trained_merged_saved_and_read(case: str, tmp_path: Path) -> None:
    x = batch()
    model = adapted(Mlp(), circuit=CASES[case][0], target_modules=["q_proj"])
    before = model(x)
    train(model, x)
    after = model(x)
    assert float((after - before).detach().norm()) > 1e-3
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(Mlp(), tmp_path)
    assert torch.equal(again(x), after)
    (update,) = read_adapter(tmp_path).updates.values()
    (layer,) = circuit_layers(model).values()
    delta = layer.get_delta_weight("default")
    assert torch.allclose(update.matrix(torch.device("cpu")), delta.double(), atol=1e-6)
    assert case == "square" or int(torch.linalg.matrix_rank(delta.double(), atol=1e-5)) == 3
    merged = model.merge_and_unload(safe_merge=True)
    assert torch.allclose(merged(x), after, atol=1e-5)
