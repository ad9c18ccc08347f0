"""What presets warn of: options past which there are no more updates, and those that leave outputs without inputs.

The oracle of the one is the rank of the derivative of the operator by the parameters, that of the other its zeros.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from quanta_compiler import load_spec
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.parameters import stored_tensors
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.spec.circuit_spec import CircuitSpec

LIMITS: list[tuple[str, str, dict[str, Any], tuple[int, int]]] = [
    ("lora", "rank", {}, (5, 3)),
    ("tt", "rank", {"layout": [2, 4]}, (8, 6)),
    ("tt", "rank", {"layout": [2, 2, 2]}, (8, 8)),
    ("btt", "rank", {"layout": [4, 2]}, (8, 6)),
    ("btt", "rank", {"layout": [2, 2, 2]}, (8, 4)),
    ("loretta", "rank", {"layout": [2, 3], "tt_rank": 2}, (6, 6)),
    ("loretta", "rank", {"layout": [2, 2, 2], "tt_rank": 5}, (8, 4)),
    ("loretta", "tt_rank", {"layout": [3, 4], "rank": 3}, (12, 12)),
    ("loretta", "tt_rank", {"layout": [4, 2], "rank": 3}, (8, 6)),
    ("loretta", "tt_rank", {"layout": [2, 2, 2], "rank": 2}, (8, 8)),
    ("loretta", "tt_rank", {"layout": [2, 4], "rank": 7}, (8, 4)),
    ("monarch", "block_rank", {"blocks": 2}, (6, 6)),
    ("monarch", "block_rank", {"blocks": 4}, (8, 8)),
    ("monarch", "block_rank", {"blocks": 3}, (9, 6)),
    ("monarch", "block_rank", {"blocks": 2}, (4, 8)),
]


def spec_of(preset: str, options: dict[str, Any], n: int, m: int) -> CircuitSpec:
    return load_spec({"version": 1, "name": "a", "preset": preset, **options}, in_features=n, out_features=m)


def numbers(circuit: Circuit) -> torch.Tensor:
    """All parameters of a circuit in a row, at random."""
    count = sum(math.prod(shape) for shape in shapes(circuit).values())
    return torch.randn(count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def shapes(circuit: Circuit) -> dict[str, tuple[int, ...]]:
    return {stored.key: stored.shape for gate in circuit.gates for stored in stored_tensors(circuit, gate)}


def drawn(circuit: Circuit, row: torch.Tensor) -> dict[str, torch.Tensor]:
    pieces = torch.split(row, [math.prod(shape) for shape in shapes(circuit).values()])
    return {key: piece.reshape(shape) for (key, shape), piece in zip(shapes(circuit).items(), pieces, strict=True)}


def directions(spec: CircuitSpec) -> int:
    """The rank of the derivative of the operator by the parameters, at random ones: the dimension of its operators."""
    circuit = build_circuit(spec)
    row = numbers(circuit).requires_grad_()
    entries = circuit_operator(circuit, drawn(circuit, row)).flatten()
    derivative = torch.stack([torch.autograd.grad(entry, row, retain_graph=True)[0] for entry in entries])
    return int(torch.linalg.matrix_rank(derivative, rtol=1e-9))


@pytest.mark.parametrize(("preset", "option", "options", "shape"), LIMITS, ids=str)
def test_an_option_is_warned_of_past_its_last_update(
    preset: str, option: str, options: dict[str, Any], shape: tuple[int, int]
) -> None:
    spec = spec_of(preset, {**options, option: 100}, *shape)
    found = [
        re.match(rf"`{option}` 100 is more than this circuit can use \((\d+)\)\Z", w.message) for w in spec.warnings
    ]
    (largest,) = [int(match[1]) for match in found if match]
    fewer, most, more = (
        directions(spec_of(preset, {**options, option: value}, *shape)) for value in (largest - 1, largest, 2 * largest)
    )
    assert fewer < most == more
    assert option not in [warning.path for warning in spec_of(preset, {**options, option: largest}, *shape).warnings]


@pytest.mark.parametrize(
    ("blocks", "rank", "shape"),
    [(8, 4, (64, 64)), (8, 8, (64, 64)), (3, 2, (64, 10)), (3, 5, (10, 64)), (1, 1, (6, 6))],
)
def test_a_monarch_of_few_numbers_a_block_is_not_connected(blocks: int, rank: int, shape: tuple[int, int]) -> None:
    options = {"blocks": blocks, "block_rank": rank}
    spec = spec_of("monarch", options, *shape)
    circuit = build_circuit(spec)
    operator = circuit_operator(circuit, drawn(circuit, numbers(circuit)))
    warned = [(w.path, w.message) for w in spec.warnings if "depend" in w.message]
    message = f"`block_rank` {rank} is too small for every output to depend on every input"
    assert warned == ([] if (operator != 0).all() else [("block_rank", message)])
    assert bool(warned) == (rank < blocks)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((768, 768), [("in_features", "256 of the 350 angles", "a size of 1024 takes 28 angles")]),
        ((64, 7), [("out_features", "5 of the 17 angles", "a size of 8 takes 7 angles")]),
        ((64, 32), []),
    ],
)
def test_widths_with_angles_that_turn_pairs_are_told_once(
    shape: tuple[int, int], told: list[tuple[str, str, str]]
) -> None:
    keys = {"in_features": shape[0], "out_features": shape[1], "rank": 4}
    warnings = spec_of("quantum_peft", keys, *shape).warnings
    assert len(warnings) == len(told)
    for warning, (path, fact, remedy) in zip(warnings, told, strict=True):
        assert warning.path == path
        assert warning.message.startswith(f"{fact} of an orthogonal matrix of size")
        assert (warning.hint or "").startswith(remedy)
    template = spec_of("quantum_peft", {"rank": 4}, *shape).warnings
    assert [warning.path for warning in template] == ["preset"] * len(told)


@pytest.mark.parametrize(
    ("preset", "width", "options", "hint"),
    [
        ("oft", 64, {"blocks": 7}, "`blocks: 8` is not padded"),
        ("boft", 64, {"blocks": 6}, "`blocks: 8` is not padded"),
        ("gsoft", 64, {"blocks": 7}, "`blocks: 8` is not padded"),
        ("gsoft", 64, {"blocks": 3}, "`blocks: 4` is not padded"),
        ("oft", 67, {"blocks": 7}, None),
        ("oft", 67, {}, None),
        ("boft", 64, {"factors": 7}, None),
    ],
)
def test_a_width_that_blocks_do_not_divide_is_told_with_blocks_that_do(
    preset: str, width: int, options: dict[str, int], hint: str | None
) -> None:
    file = {"version": 1, "name": "turned", "preset": preset, "in_features": width}
    (warning,) = load_spec({**file, **options}).warnings
    assert " is padded to " in warning.message
    assert warning.hint == hint
    if hint is not None:
        assert not load_spec({**file, "blocks": int(hint.split("`")[1].partition(": ")[2])}).warnings
