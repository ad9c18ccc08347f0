"""Figures of updates against numpy's and against the definitions, written out."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy
import pytest
import torch
from paper_checkpoints import generator
from peft import LoraConfig, get_peft_model
from torch import nn

from quanta_compiler.adapters.analysis import LayerFigures, layer_figures, subspace_similarity
from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.adapters.updates import CircuitUpdate, FactoredUpdate, Update
from quanta_compiler.nn import fit_circuit

CPU = torch.device("cpu")
SHAPES = [(12, 12), (12, 30), (30, 12), (1, 7), (7, 1)]
"""out_features, in_features."""


def factored(out_features: int, in_features: int, rank: int, seed: int = 0) -> FactoredUpdate:
    draw = generator(seed)
    left = torch.randn(out_features, rank, generator=draw)
    return FactoredUpdate(left, torch.randn(rank, in_features, generator=draw), 0.5)


def circuit(out_features: int, in_features: int, seed: int = 0) -> CircuitUpdate:
    document = {"version": 1, "name": "c", "layout": [4, 3], "gates": ["all_pairs", "each"]}
    fitted = fit_circuit(document, in_features, out_features)
    start = fitted.draw(seed)
    trained = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator(1)) for name, tensor in start.items()}
    return CircuitUpdate(fitted, trained, start, 2.0)


def figures(update: Update, vectors: int = 100) -> LayerFigures:
    return layer_figures("layer", update, vectors=vectors, device=CPU)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["circuit", "rank 1", "rank 5", "rank 40"])
def test_figures_are_those_of_numpy(shape: tuple[int, int], kind: str) -> None:
    update = circuit(*shape) if kind == "circuit" else factored(*shape, int(kind[5:]))
    matrix = update.matrix(CPU).numpy()
    found = figures(update)
    values = numpy.linalg.svd(matrix, compute_uv=False)
    assert matrix.shape == shape == update.shape
    numpy.testing.assert_allclose(found.values.numpy(), values, atol=1e-7 * values[0])
    assert found.rank == numpy.linalg.matrix_rank(matrix, tol=max(shape) * 2.0**-23 * values[0])
    alone = figures(update, vectors=0)
    torch.testing.assert_close(alone.values, found.values, atol=1e-7 * values[0], rtol=0.0)
    assert (alone.rank, alone.right.shape) == (found.rank, (shape[1], 0))
    assert found.tolerance == pytest.approx(max(shape) * 2.0**-23 * values[0])
    assert found.frobenius_norm == pytest.approx(numpy.linalg.norm(matrix))
    assert found.stable_rank == pytest.approx(numpy.linalg.norm(matrix) ** 2 / values[0] ** 2)
    shares = values[values > 0] / values.sum()
    assert found.effective_rank == pytest.approx(math.exp(-(shares * numpy.log(shares)).sum()), rel=1e-5)
    assert found.stable_rank * (1 + 1e-9) >= 1
    assert found.effective_rank <= found.rank + 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["circuit", "factored"])
def test_right_singular_vectors_are_orthonormal_and_stretched_by_the_singular_values(
    shape: tuple[int, int], kind: str
) -> None:
    update = circuit(*shape) if kind == "circuit" else factored(*shape, 5)
    found = figures(update, vectors=3)
    count = found.right.shape[1]
    assert count == min(3, found.rank)
    torch.testing.assert_close(found.right.T @ found.right, torch.eye(count, dtype=torch.float64))
    stretched = torch.linalg.norm(update.matrix(CPU) @ found.right, dim=0)
    torch.testing.assert_close(stretched, found.values[:count])


def test_an_untrained_update_has_rank_zero() -> None:
    update = circuit(12, 12)
    assert update.frozen is not None
    found = figures(CircuitUpdate(update.circuit, update.frozen, update.frozen, 1.0))
    assert (found.rank, found.effective_rank, found.stable_rank, found.frobenius_norm) == (0, 0.0, 0.0, 0.0)
    assert found.right.shape == (12, 0)


def test_a_small_update_keeps_its_rank() -> None:
    # Rounding T - S in float32 would be noise of full rank, larger than the tolerance.
    document = {"version": 1, "name": "c", "layout": [8, 8, 4], "gates": ["all_pairs"]}
    fitted = fit_circuit(document, 256, 256)
    start = fitted.draw(0)
    name, frozen = next(iter(start.items()))
    line = torch.randn(len(frozen), 1, generator=generator(0))
    trained = {**start, name: frozen + 1e-4 * line @ line.T}
    assert figures(CircuitUpdate(fitted, trained, start, 1.0)).rank < 256 // 2


def test_similarity_is_one_for_contained_and_zero_for_orthogonal_subspaces() -> None:
    basis, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator(0), dtype=torch.float64))
    same = subspace_similarity(basis[:, :5], basis[:, :8])
    assert same.shape == (5, 8)
    torch.testing.assert_close(same, torch.ones(5, 8, dtype=torch.float64))
    assert subspace_similarity(basis[:, :5], basis[:, 5:9]).abs().max() < 1e-12


def test_similarity_by_its_definition() -> None:
    draw = generator(0)
    first, _ = torch.linalg.qr(torch.randn(20, 6, generator=draw, dtype=torch.float64))
    other, _ = torch.linalg.qr(torch.randn(20, 9, generator=draw, dtype=torch.float64))
    phi = subspace_similarity(first, other)
    for i in range(1, 7):
        for j in range(1, 10):
            norm = torch.linalg.norm(first[:, :i].T @ other[:, :j])
            assert float(phi[i - 1, j - 1]) == pytest.approx(float(norm) ** 2 / min(i, j))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(12, 12)
        self.inner = nn.ModuleDict({"q": nn.Linear(12, 20), "v": nn.Linear(12, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner["v"](self.q(x)) + self.inner["q"](x).mean()
        return result


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_updates_are_those_that_peft_merges(rslora: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        target_modules=["q", "v"],
        rank_pattern={} if rslora else {"inner.q": 2},
        # Saving sorts the patterns, and the first that matches counts.
        alpha_pattern={} if rslora else {"inner.q": 5, "q": 3},
        init_lora_weights=False,
    )
    model = get_peft_model(Model(), config)
    model.save_pretrained(tmp_path)
    saved = read_adapter(tmp_path)
    assert list(saved.updates) == ["inner.q", "inner.v", "q"]
    for layer, update in saved.updates.items():
        delta = model.base_model.model.get_submodule(layer).get_delta_weight("default")
        torch.testing.assert_close(update.matrix(CPU).float(), delta)
    assert list(read_adapter(tmp_path, re.compile(r"\.v$")).updates) == ["inner.v"]


def test_circuit_updates_are_those_that_peft_merges(tmp_path: Path) -> None:
    from quanta_compiler.peft import QuantaConfig

    lowrank = {"version": 1, "name": "low", "layout": [4, 3], "gates": [{"axes": [0, 1], "kind": "lowrank", "rank": 2}]}
    frozen = {"version": 1, "name": "froz", "layout": [4, 3], "gates": [[0, 1], {"axes": [0], "frozen": True}]}
    zero = {"version": 1, "name": "zero", "layout": [4, 3], "gates": [{"axes": [0, 1], "init": "zeros"}, "each"]}
    torch.manual_seed(0)
    for residual in ("auto", "frozen_copy", "none"):
        circuits = {"q": zero, "inner.q": frozen, "v": lowrank}
        config = QuantaConfig(circuit=circuits, residual=residual, scale=0.7, init_weights=False)
        model = get_peft_model(Model(), config)
        model.save_pretrained(tmp_path)
        for layer, update in read_adapter(tmp_path).updates.items():
            delta = model.base_model.model.get_submodule(layer).get_delta_weight("default")
            assert delta.abs().max() > 0
            torch.testing.assert_close(update.matrix(CPU).float(), delta, atol=1e-6, rtol=1e-5)
