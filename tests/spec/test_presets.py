"""Presets: the operator against the family's formula, entry by entry or with explicit permutation matrices, and counts.

The constructions below read the parameters alone: they share no code with the circuits that they judge.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from plain_blocks import block_diagonal, boft, gsoft, oft, transposing
from plain_rotations import plain_pauli

from quanta_compiler import compile_circuit, load_spec
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import to_dict, to_yaml
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.short_notation import preset_document

Array = NDArray[np.float64]
Gates = dict[str, Array]
Factors = tuple[int, ...]

OPTIONS: dict[str, dict[str, Any]] = {
    "quanta": {"layout": {"auto": 3}},
    "lora": {"rank": 3},
    "krona": {"layout": {"auto": 3}},
    "tt": {"layout": {"auto": 3}, "rank": 2},
    "loretta": {"layout": {"auto": 3}, "rank": 3, "tt_rank": 4},
    "monarch": {"blocks": 4, "block_rank": 3},
    "btt": {"layout": {"auto": 3}, "rank": 2},
    "butterfly": {},
    "quantum_peft": {"rank": 3, "layers": 2},
    "quantum_peft_full": {"layers": 1},
    "oft": {"blocks": 4},
    "boft": {"blocks": 4, "factors": 3},
    "gsoft": {"blocks": 2},
    "lotr": {"rank": 3},
    "vera": {"rank": 5},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *OPTIONS.items(),
    ("monarch", {"blocks": 4, "block_rank": 4}),
    ("btt", {"layout": {"auto": 2}, "rank": 1}),
    ("tt", {"layout": {"auto": 1}, "rank": 2}),
    ("quantum_peft", {"rank": 1, "layers": 0}),
    ("oft", {}),
    ("boft", {}),
    ("boft", {"blocks": 6, "factors": 1}),
    ("gsoft", {}),
    ("gsoft", {"blocks": 3}),
]
SHAPES = [(24, 24), (24, 36), (36, 16), (23, 29), (1, 1)]
CASES = [
    (preset, options, shape)
    for (preset, options), shape in itertools.product(VARIANTS, SHAPES)
    if preset != "quantum_peft" or options["rank"] <= min(shape)
]
# What the widths above are factored into, where that is not the width itself; (23, 29) and 1 are padded.
FACTORS: dict[tuple[int, int], Factors] = {
    (24, 1): (24,), (24, 2): (6, 4), (24, 3): (4, 3, 2), (36, 1): (36,), (36, 2): (6, 6), (36, 3): (4, 3, 3),
    (16, 1): (16,), (16, 2): (4, 4), (16, 3): (4, 2, 2), (23, 1): (23,), (23, 2): (6, 4), (23, 3): (4, 3, 2),
    (29, 1): (29,), (29, 2): (6, 5), (29, 3): (5, 3, 2), (1, 1): (2,), (1, 2): (2, 2), (1, 3): (2, 2, 2),
}  # fmt: skip


def spec_of(preset: str, options: dict[str, Any], n: int, m: int) -> CircuitSpec:
    return load_spec({"version": 1, "name": "a", "preset": preset, **options}, in_features=n, out_features=m)


def drawn(spec: CircuitSpec) -> tuple[Array, Gates]:
    """The operator of a module whose parameters are all random, and those parameters."""
    module: Any = compile_circuit(spec).module(seed=0, dtype=torch.float64, backend="torch")
    generator = torch.Generator().manual_seed(5)
    gates: Gates = {}
    for key, parameter in module.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        gates[key.removeprefix("gates.")] = parameter.detach().numpy()
    return module.operator().detach().numpy(), gates


def indices(sizes: Factors) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, sizes)))


def quanta(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    """Each gate as a matrix on the whole space: an entry is zero unless all other axes agree."""
    sizes = FACTORS[max(n, m), options["layout"]["auto"]]
    whole = indices(sizes)
    total = np.eye(len(whole))
    for gate, (j, k) in zip(gates.values(), [(1, 2), (0, 2), (0, 1)], strict=True):
        full = np.zeros_like(total)
        for (row, out), (column, x) in itertools.product(enumerate(whole), repeat=2):
            if all(out[axis] == x[axis] for axis in range(3) if axis not in (j, k)):
                full[row, column] = gate[out[j] * sizes[k] + out[k], x[j] * sizes[k] + x[k]]
        total = full @ total
    return total


def lora(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    return gates["g0.B"] @ gates["g0.A"]


def krona(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    first, second, third = gates.values()
    return np.kron(np.kron(first, second), third)


def train(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    """An entry is a product of matrices, one of each core; in a block tensor train they depend on the other indices."""
    axes = options["layout"]["auto"]
    columns, rows = FACTORS[n, axes], FACTORS[m, axes]
    rank, last = options["rank"], axes - 1

    def entry(i: tuple[int, ...], j: tuple[int, ...]) -> float:
        product = np.eye(1)
        for k in range(axes):
            left, right = rank if k else 1, rank if k < last else 1
            core = gates[f"core{k}"]
            if core.ndim > 2:
                core = core[j[:k] + i[k + 1 :]]
            product = product @ core.reshape(rows[k], left, columns[k], right)[i[k], :, j[k], :]
        return float(product[0, 0])

    return np.array([[entry(i, j) for j in indices(columns)] for i in indices(rows)])


def loretta(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    bond, rank, axes = options["tt_rank"], options["rank"], options["layout"]["auto"]
    columns, rows = FACTORS[n, axes], FACTORS[m, axes]
    a = np.zeros((rank, math.prod(columns)))
    for place, j in enumerate(indices(columns)):
        vector = gates["A0"][:, j[0]]
        for k in range(1, axes):
            vector = gates[f"A{k}"].reshape(bond, bond, columns[k])[:, :, j[k]] @ vector
        a[:, place] = gates["A_rank"] @ vector
    b = np.zeros((math.prod(rows), rank))
    for place, i in enumerate(indices(rows)):
        matrix = gates["B_rank"]
        for k in range(axes):
            matrix = gates[f"B{k}"].reshape(rows[k], bond if k < axes - 1 else 1, bond)[i[k]] @ matrix
        b[place] = matrix[0]
    return b @ a


def monarch(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    blocks, rank = options["blocks"], options["block_rank"]
    first = transposing(rank, blocks)
    second = transposing(blocks, gates["L"].shape[1])
    return second @ block_diagonal(gates["L"]) @ first @ block_diagonal(gates["R"])


def butterfly(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    """B_(2s) is block-diagonal with blocks [[D1, D2], [D3, D4]] of size 2s, the D being diagonal matrices."""
    width = 2
    while width < max(n, m):
        width *= 2
    total = np.eye(width)
    stride = 1
    for gate in gates.values():
        pairs = gate.reshape(width // (2 * stride), stride, 2, 2)
        blocks = [np.block([[np.diag(pair[:, a, b]) for b in (0, 1)] for a in (0, 1)]) for pair in pairs]
        total = block_diagonal(np.array(blocks)) @ total
        stride *= 2
    return total


def quantum_peft(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    """U diag(s) V^T as in a singular value decomposition, the columns of U and V those of orthogonal matrices."""
    rank, layers = options["rank"], options["layers"]
    u = plain_pauli(m, layers, gates["U"])[:, :rank]
    v = plain_pauli(n, layers, gates["V"]).T[:, :rank]
    singular = np.linalg.svd(u * gates["s"] @ v.T, compute_uv=False)[:rank]
    assert np.allclose(singular, np.sort(np.abs(gates["s"]))[::-1])
    product: Array = u * gates["s"] @ v.T
    return product


def quantum_peft_full(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    return plain_pauli(max(n, m), options["layers"], gates["g0"])


def lotr(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    return gates["B"] @ gates["G"] @ gates["A"]


def vera(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    return np.diag(gates["b"]) @ gates["B"] @ np.diag(gates["d"]) @ gates["A"]


FORMULAS: dict[str, Callable[[Gates, dict[str, Any], int, int], Array]] = {
    "quanta": quanta, "lora": lora, "krona": krona, "tt": train, "loretta": loretta, "monarch": monarch,
    "btt": train, "butterfly": butterfly, "quantum_peft": quantum_peft, "quantum_peft_full": quantum_peft_full,
    "oft": oft, "boft": boft, "gsoft": gsoft,
    "lotr": lotr, "vera": vera,
}  # fmt: skip


@pytest.mark.parametrize(("preset", "options", "shape"), CASES, ids=str)
def test_the_operator_is_the_formula(preset: str, options: dict[str, Any], shape: tuple[int, int]) -> None:
    n, m = shape
    operator, gates = drawn(spec_of(preset, options, n, m))
    assert operator.shape == (m, n)
    expected = FORMULAS[preset](gates, options, n, m)[:m, :n]
    assert np.linalg.norm(operator - expected) <= 1e-12 * np.linalg.norm(expected)


def bonds(axes: int, k: int, rank: int) -> int:
    return (rank if k else 1) * (rank if k < axes - 1 else 1)


# For 4096 -> 11008 features, factored 8x8x8x8 and 14x11x9x8 (11088), 64x64 and 128x86.
COUNTS: dict[str, int] = {
    "lora:8": 8 * (4096 + 11008),
    "krona": 64 * 128 + 64 * 86,
    "krona:16-16-16": 16 * 25 + 16 * 21 + 16 * 21,
    "quanta": sum((j * k) ** 2 for j, k in itertools.combinations((14, 11, 9, 8), 2)),
    "tt:5": 5 * 8 * 14 + 25 * 8 * 11 + 25 * 8 * 9 + 5 * 8 * 8,
    "loretta:rank=6,tt_rank=7": 7 * 8 + 49 * 24 + 2 * 7 * 6 + 49 * (14 + 11 + 9) + 7 * 8,
    "monarch": 4 * (4096 + 11008),
    "monarch:blocks=64,block_rank=5": 5 * 64 * (64 + 172),
    "btt:2": 64 * 64 * 86 * 2 + 64 * 128 * 86 * 2,
    "btt:rank=2,auto=4": sum(
        math.prod((8,) * (k + 1)) * math.prod((14, 11, 9, 8)[k:]) * bonds(4, k, 2) for k in range(4)
    ),
    "butterfly": 2 * 16384 * 14,
    # p(4096) is 36 - 2; 11008 = 8192 + 2048 + 512 + 256, and every remainder turns its pairs.
    "quantum_peft:8": (36 - 2) + (2 * 37 + 2816 + 2 * (2 * 31 + 768 + 2 * (2 * 25 + 256 + 2 * 22))) + 8,
    "quantum_peft:rank=3,layers=0": 12 + (2 * 13 + 2816 + 2 * (2 * 11 + 768 + 2 * (2 * 9 + 256 + 2 * 8))) + 3,
    # Of one layer alone; of all layers together in tests/models/test_across.py.
    "lotr:16": 16 * (4096 + 11008) + 16**2,
    "vera": 11008 + 256,
    "quantum_peft_full": 2 * 37 + 2816 + 2 * (2 * 31 + 768 + 2 * (2 * 25 + 256 + 2 * 22)),
    # As wide as the larger of the two.
    "oft": 344 * 32 * 31 // 2,
    "oft:43": 43 * 256 * 255 // 2,
    "boft": 2 * 1376 * 8 * 7 // 2,
    "boft:blocks=688,factors=5": 5 * 688 * 16 * 15 // 2,
    "gsoft:16": 16 * 688 * 687,
}


@pytest.mark.parametrize("text", COUNTS)
def test_parameters_by_the_closed_formula(text: str) -> None:
    spec = load_spec(preset_document(text), in_features=4096, out_features=11008)
    assert compile_circuit(spec).report.parameters.trainable == COUNTS[text]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_table_in_the_documentation(preset: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"(?m)^\| \[`{preset}`\].*$", text)
    report = compile_circuit(load_spec(preset_document(preset), in_features=4096)).report
    figures = f"{report.parameters.trainable:,} | {report.rank.upper:,}"
    assert row.endswith(f"| {figures} |")
    options = {key: value for key, value in preset_document(preset).items() if key in PRESETS[preset].options()}
    assert re.findall("`([a-z_]+: .*?)`", row) == [f"{key}: {value}".replace("'", "") for key, value in options.items()]


def test_a_square_monarch_of_full_blocks_is_dao_s() -> None:
    """n = b^2 with b x b blocks: M = P L P^T R, as the file examples/monarch-64.yaml has it."""
    operator, gates = drawn(spec_of("monarch", {"blocks": 6, "block_rank": 6}, 36, 36))
    p = transposing(6, 6)
    expected = p @ block_diagonal(gates["L"]) @ p.T @ block_diagonal(gates["R"])
    assert np.allclose(operator, expected)


@pytest.mark.parametrize(("preset", "options"), OPTIONS.items(), ids=str)
@pytest.mark.parametrize("shape", [(24, 24), (24, 36), (23, 29)], ids=str)
def test_expanding_a_preset_changes_nothing(preset: str, options: dict[str, Any], shape: tuple[int, int]) -> None:
    spec = spec_of(preset, options, *shape)
    again = load_spec(to_yaml(spec))
    assert again == spec
    assert load_spec(to_dict(spec)) == spec
    assert "preset" not in to_dict(spec)


@pytest.mark.parametrize("preset", PRESETS)
def test_training_can_start_and_most_begin_at_zero(preset: str) -> None:
    """A circuit at zero has a gradient in the gate that is zero; the others are given to frozen copies."""
    spec = spec_of(preset, OPTIONS[preset], 24, 36)
    module = compile_circuit(spec).module(seed=0, backend="torch")
    x = torch.randn(7, 24, generator=torch.Generator().manual_seed(1))
    others = ("quanta", "butterfly", "quantum_peft_full", "oft", "boft", "gsoft")
    assert (module(x).abs().max() == 0) == (preset not in others)
    (module(x) - 1).square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 1e-3 for parameter in module.parameters())


def test_init_is_that_of_all_gates() -> None:
    spec = spec_of("lora", {"rank": 2, "init": {"scheme": "normal", "std": 0.5}}, 8, 8)
    assert [(gate.init.scheme, gate.init.std) for gate in spec.gates if gate.init] == [("normal", 0.5)]
    spec = spec_of("tt", {"init": "xavier_uniform", "plan": {"tokens": 7}}, 16, 16)
    assert {gate.init.scheme for gate in spec.gates if gate.init} == {"xavier_uniform"}
    assert spec.tokens == 7


def test_widths_of_the_file_come_before_those_of_a_layer() -> None:
    file = {"version": 1, "name": "a", "preset": "lora", "in_features": 12}
    spec = load_spec(file, in_features=99, out_features=5)
    assert (spec.in_features, spec.out_features) == (12, 5)
    spec = load_spec(file)
    assert (spec.in_features, spec.out_features) == (12, 12)
    spec = load_spec({**file, "out_features": 3}, out_features=5)
    assert spec.out_features == 3


def test_a_layout_that_is_written_out_says_the_widths() -> None:
    spec = load_spec(preset_document("krona:6-4"))
    assert (spec.in_features, spec.out_features, spec.warnings) == (24, 24, ())
    spec = load_spec(preset_document("krona:6-4"), in_features=24, out_features=36)
    assert [gate.to[0].size for gate in spec.gates] == [6, 6]
    spec = load_spec(preset_document("krona:6-4"), in_features=20, out_features=20)
    assert [warning.path for warning in spec.warnings] == ["preset", "preset"]


def test_a_family_is_called_as_in_the_table_and_its_main_option_is_one() -> None:
    for name, family in PRESETS.items():
        assert family.name == name
        assert family.main is None or family.main in family.options()
