"""Presets as circuits: for each, a pure function from its options and the layer's widths to a circuit file's content.

Below, n is in_features and m is out_features; n_k and m_k are their factors, axis by axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.spec.circuit_layout import auto_layout
from quanta_compiler.spec.layout_values import Layout
from quanta_compiler.spec.preset_models import (
    BlockTensorTrainPreset,
    ButterflyPreset,
    KronaPreset,
    LoraPreset,
    LorettaPreset,
    MonarchPreset,
    QuantaPreset,
    QuantumPeftFullPreset,
    QuantumPeftPreset,
    TensorTrainPreset,
)

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expansion:
    """The circuit that a preset stands for."""

    circuit: dict[str, Any]
    """`layout`, `gates` and, where they are not the defaults, `init` and `output`, as a file writes them."""
    largest: dict[str, int] = field(default_factory=dict)
    """For some options the value past which the circuit has no more updates, only more parameters."""
    connecting: dict[str, int] = field(default_factory=dict)
    """For some options the value from which on every output can depend on every input."""
    chosen_width: int | None = None
    """The width of a square circuit that the compiler chose; None where both widths are served by themselves."""
    limits: dict[str, int] = field(default_factory=dict)
    """For some options the largest value with which the circuit is one of the family."""


def quanta_circuit(file: QuantaPreset, in_features: int, out_features: int) -> Expansion:
    """QuanTA (Chen et al. 2024): T = T^(last) ... T^(1), a gate for every pair of axes."""
    sizes = file.layout.sizes_for(max(in_features, out_features))
    circuit = {"layout": list(sizes), "gates": ["all_pairs"]}
    return Expansion(circuit, chosen_width=math.prod(sizes) if file.layout.auto is not None else None)


def lora_circuit(file: LoraPreset, in_features: int, out_features: int) -> Expansion:
    """LoRA (Hu et al. 2021, eq. 3): T = B A, A: [r, n], B: [m, r], B zero at the start."""
    gate: dict[str, Any] = {"axes": [0], "to": [out_features], "kind": "lowrank", "rank": file.rank, "init": "zeros"}
    return Expansion({"layout": [in_features], "gates": [gate]}, {"rank": min(in_features, out_features)})


def krona_circuit(file: KronaPreset, in_features: int, out_features: int) -> Expansion:
    """KronA (Edalati et al. 2022): T = A_0 (x) A_1 (x) ..., A_k: [m_k, n_k], the last one zero."""
    columns, rows = _factors(file.layout, in_features, out_features)
    gates: list[dict[str, Any]] = [{"axes": [axis], "to": [rows[axis]]} for axis in range(len(columns))]
    gates[-1]["init"] = "zeros"
    return Expansion({"layout": list(columns), "gates": gates})


def tt_circuit(file: TensorTrainPreset, in_features: int, out_features: int) -> Expansion:
    """Tensor-train matrix (Novikov et al. 2015): T[i, j] = G_0[i_0, j_0] G_1[i_1, j_1] ..., bonds of size r.

    The last core is applied first, so that the state is never larger than r times the largest of the partial products.
    """
    columns, rows = _factors(file.layout, in_features, out_features)
    # A bond is the rank of the matrix with all of one side's indices as rows and all of the other's as columns.
    both = [row * column for row, column in zip(rows, columns, strict=True)]
    largest = {"rank": _largest_bond(both, both)} if len(both) > 1 else {}
    circuit = {"layout": list(columns), "init": "orthogonal", "gates": _train(columns, rows, file.rank, {})}
    return Expansion(circuit, largest)


def btt_circuit(file: BlockTensorTrainPreset, in_features: int, out_features: int) -> Expansion:
    """Block tensor train (Qiu et al. 2024): a tensor train, each core different for every other index.

    With two axes T[(a b), (c d)] = sum_s L[a, b, c, s] R[b, c, d, s], and rank 1 is a Monarch matrix.
    """
    columns, rows = _factors(file.layout, in_features, out_features)
    largest = {"rank": _largest_bond(rows, columns)} if len(rows) > 1 else {}
    gates = _train(columns, rows, file.rank, {"per": "rest"})
    return Expansion({"layout": list(columns), "gates": gates}, largest)


def loretta_circuit(file: LorettaPreset, in_features: int, out_features: int) -> Expansion:
    """LoRETTA_rep (Yang et al. 2024): T = B A, the numbers of A and of B each a tensor train with bonds of size t.

    A is the train of the tensor [n_0, ..., r], B that of [r, m_0, ...]: a core for each factor and one for r. What
    goes from one to the other passes a bond of each, so that the rank of T is at most the smaller of r and t.
    """
    columns, rows = _factors(file.layout, in_features, out_features)
    last, bond = len(columns) - 1, file.tt_rank
    gates: list[dict[str, Any]] = []
    for axis in range(len(columns)):
        before = [f"a{axis - 1}"] if axis else []
        gates.append({"name": f"A{axis}", "axes": [*before, axis], "to": {f"a{axis}": bond}})
    gates.append({"name": "A_rank", "axes": [f"a{last}"], "to": {"r": file.rank}})
    gates.append({"name": "B_rank", "axes": ["r"], "to": {"b0": bond}})
    for axis, size in enumerate(rows):
        after = {f"b{axis + 1}": bond} if axis < last else {}
        gates.append({"name": f"B{axis}", "axes": [f"b{axis}"], "to": {f"y{axis}": size, **after}})
    gates[-1]["init"] = "zeros"
    circuit = {"layout": list(columns), "init": "orthogonal", "gates": gates}
    most = min(in_features, out_features)
    rank = min(file.rank, most)
    bonds = (_largest_bond(sizes, sizes) for sizes in ([*columns, rank], [rank, *rows]))
    return Expansion(circuit, {"rank": min(most, bond), "tt_rank": max(bonds)})


def monarch_circuit(file: MonarchPreset, in_features: int, out_features: int) -> Expansion:
    """Monarch (Dao et al. 2022; rectangular as in MoRe, Tan et al. 2024): T = P_2 L P_1 R.

    R is block-diagonal with N blocks of [r, n / N], L with N blocks of [m / N, r]. P_1 reads the N r numbers, P_2 the m
    numbers as a matrix and transposes it, so that the r numbers of a block of R are dealt out to the blocks of L one
    after the other: every block of L sees all blocks of R where r >= N, and only some of them where r < N. About r / N
    numbers go from a block of R to one of L, and only min(m, n) / N of them can be of use. L is zero at the start.
    """
    blocks, rank = file.blocks, file.block_rank
    columns, rows = -(-in_features // blocks), -(-out_features // blocks)
    first: dict[str, Any] = {"name": "R", "axes": [1], "per": [0], "to": {"k": rank}}
    if blocks == rank:
        # P_1 only exchanges the two axes.
        middle: list[dict[str, Any]] = []
        second = {"name": "L", "axes": [0], "per": ["k"], "to": {"o": rows}, "init": "zeros"}
        output = ["o", "k"]
    else:
        middle = [{"name": "P", "kind": "slice", "axes": [0, "k"], "to": {"c": rank, "b": blocks}}]
        second = {"name": "L", "axes": ["c"], "per": ["b"], "to": {"o": rows}, "init": "zeros"}
        output = ["o", "b"]
    circuit = {"layout": [blocks, columns], "gates": [first, *middle, second], "output": output}
    # With fewer outputs than blocks, most blocks of L are cut off: what is left may be connected by a smaller rank.
    connecting = {"block_rank": blocks} if blocks <= out_features else {}
    return Expansion(circuit, {"block_rank": blocks * min(rows, columns)}, connecting)


def butterfly_circuit(file: ButterflyPreset, in_features: int, out_features: int) -> Expansion:
    """Butterfly (Dao et al. 2019): T = B_n ... B_4 B_2 for the next power of two, no permutation.

    Factor B_(2s) mixes numbers s apart by 2 x 2 blocks, a block of its own for every pair: over a layout of 2s that is
    a gate on one axis, the last axis first.
    """
    axes = max(1, (max(in_features, out_features) - 1).bit_length())
    gates = [{"axes": [axis], "per": "rest"} for axis in reversed(range(axes))]
    return Expansion({"layout": [2] * axes, "init": "orthogonal", "gates": gates}, chosen_width=1 << axes)


def quantum_peft_circuit(file: QuantumPeftPreset, in_features: int, out_features: int) -> Expansion:
    """Quantum-PEFT (Koike-Akino et al. 2025): T = U diag(s) V^T, U: [m, r] and V: [n, r] of orthonormal columns.

    V^T is the first rows of an orthogonal n x n matrix, U the first columns of an m x m one. s is zero at the start.
    """
    rotation: dict[str, Any] = {"axes": [0], "kind": "pauli", "layers": file.layers}
    gates: list[dict[str, Any]] = [
        {"name": "V", "to": [file.rank], **rotation},
        {"name": "s", "axes": [0], "kind": "diagonal", "init": "zeros"},
        {"name": "U", "to": [out_features], **rotation},
    ]
    return Expansion({"layout": [in_features], "gates": gates}, limits={"rank": min(in_features, out_features)})


def quantum_peft_full_circuit(file: QuantumPeftFullPreset, in_features: int, out_features: int) -> Expansion:
    """Return an orthogonal matrix as wide as the larger width, of which T: [m, n] is the first rows or columns."""
    gate = {"axes": [0], "to": [out_features], "kind": "pauli", "layers": file.layers}
    return Expansion({"layout": [in_features], "gates": [gate]})


def _factors(layout: Layout, in_features: int, out_features: int) -> tuple[Sizes, Sizes]:
    """Return the factors of the input and of the output, equally many: those of one width serve for both."""
    columns = layout.sizes_for(in_features)
    return columns, columns if in_features == out_features else auto_layout(out_features, len(columns), layout.rule)


def _train(columns: Sizes, rows: Sizes, bond: int, more: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cores of a train from the last axis to the first, each with `more`; the last one applied is zero."""
    gates: list[dict[str, Any]] = []
    for axis in reversed(range(len(columns))):
        given = [f"s{axis + 1}"] if axis + 1 < len(columns) else []
        handed: dict[int | str, int] = {f"s{axis}": bond} if axis else {}
        to = {axis: rows[axis], **handed}
        gates.append({"name": f"core{axis}", "axes": [axis, *given], "to": to, **more})
    gates[-1]["init"] = "zeros"
    return gates


def _largest_bond(left: list[int] | Sizes, right: list[int] | Sizes) -> int:
    """Return the largest rank that a bond can have, with the sizes to its left against those to its right."""
    return max(min(math.prod(left[:cut]), math.prod(right[cut:])) for cut in range(1, len(left)))
