"""Who says to compute the circuit does: forward, gradients and matrix, against the float64 module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled_circuits import compiled
from drawn_kinds import STORED
from mixed_circuit import MIXED
from random_circuits import file_of, kinds_of, random_file

from quanta_compiler.bench.agreement import errors, expected_results
from quanta_compiler.bench.contestants import Contestant, LeftOutError, Setting, draw_gates
from quanta_compiler.bench.einsums import (
    einsum_contestant,
    gate_by_gate_contestant,
    opt_einsum_contestant,
    optimizer_for,
)
from quanta_compiler.bench.layers import dense_layer, lora_layer
from quanta_compiler.bench.options import FORWARD, MODES, OPERATOR, OURS, TRAINING
from quanta_compiler.bench.ours import our_contestant, our_names
from quanta_compiler.bench.roster import batch_of
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.cpu import engine as cpu

KINDS = set(STORED) - {"slice"}
SEEDS = [seed for seed in range(120) if kinds_of(file := random_file(seed)) <= KINDS and len(file["gates"]) < 13][:20]
RIVALS = (einsum_contestant, gate_by_gate_contestant, opt_einsum_contestant)
CASES: dict[str, dict[str, Any]] = {
    "all pairs": file_of("4x3x2x2", ["all_pairs"]),
    "padded": file_of("4x3x2", ["all_pairs"], in_features=17, out_features=31),
    "truncated": file_of("4x3x2", ["all_pairs"], in_features=31, out_features=17),
    "one axis untouched": file_of("4x3x2", [[0, 1], [1]]),
    "low rank, shared": file_of(
        "4x3", [{"axes": [0, 1], "kind": "lowrank", "rank": 2}, {"axes": [0, 1], "share": "g0", "transpose": True}]
    ),
    "shared, split otherwise": file_of(
        {"a": 4, "b": 3, "c": 6, "d": 2},
        [{"axes": ["a", "b"], "name": "first"}, {"axes": ["c", "d"], "share": "first"}],
    ),
    "diagonal": file_of("4x3x2", [{"axes": [0], "kind": "diagonal", "per": [2]}, {"axes": [1], "kind": "diagonal"}]),
    "blocks, rectangular": file_of("4x3x2", [{"axes": [0], "per": [2], "to": {"b": 5}}, {"axes": ["b", 1]}]),
    "constant, frozen": file_of(
        "2x3", [{"axes": [0], "kind": "constant", "value": [[1, 2], [3, 4]]}, {"axes": [0, 1], "frozen": True}, [1]]
    ),
    "rotations": file_of(
        {"a": 2, "b": 2, "c": 4},
        [
            {"axes": ["a"], "kind": "ry", "per": ["b"]},
            {"axes": ["a", "c"], "kind": "cz"},
            {"axes": ["b", "a"], "kind": "orthogonal", "name": "first"},
            {"axes": ["c"], "share": "first", "transpose": True},
            {"axes": ["b"], "kind": "ry"},
            {"axes": ["c"], "kind": "orthogonal", "map": "cayley", "rank_parameters": 2, "per": ["b"], "to": {"d": 7}},
            {"axes": ["d"], "kind": "orthogonal", "to": {"d": 5}, "frozen": True},
        ],
    ),
    "two-design": file_of("2x2x2", [{"pattern": "two_design"}]),
    "an axis goes": file_of({"a": 4, "b": 3}, [{"axes": ["a", "b"], "to": {"c": 2}}], output=["c"]),
}


def setting_of(circuit: CompiledCircuit, dtype: torch.dtype = torch.float32) -> Setting:
    return Setting(circuit, dtype, draw_gates(circuit, dtype))


def errors_of(contestant: Contestant, setting: Setting) -> dict[str, float]:
    x, gradient = batch_of(setting)
    expected = expected_results(setting, x, gradient)
    return errors(contestant, expected, x, [mode for mode in MODES if mode in contestant.costs])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", RIVALS, ids=lambda make: make.__name__)
def test_rivals_compute_the_circuit(make: Any, case: str) -> None:
    setting = setting_of(compile_circuit(CASES[case], tokens=5))
    contestant = make(setting)
    found = errors_of(contestant, setting)
    assert set(found) == {FORWARD, TRAINING} | ({OPERATOR} if contestant.operator else set())
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("seed", SEEDS)
def test_rivals_compute_random_circuits(seed: int) -> None:
    circuit = compiled(seed)
    setting = setting_of(circuit, torch.float64)
    for make in RIVALS:
        contestant = make(setting)
        found = errors_of(contestant, setting)
        assert max(found.values()) < 1e-10, (contestant.name, found)


@pytest.mark.parametrize("name", OURS)
def test_ours_compute_the_circuit(name: str) -> None:
    setting = setting_of(compile_circuit(MIXED, tokens=5))
    try:
        contestant = our_contestant(name, setting)
    except LeftOutError:
        pytest.skip("not here")
    assert max(errors_of(contestant, setting).values()) < 1e-5


@pytest.mark.parametrize("prefers", [True, False])
def test_what_auto_takes_is_the_first_of_ours(prefers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "prefers", lambda *_: prefers)
    if not cpu.ready():
        pytest.skip("there is no kernel")
    names = our_names(setting_of(compile_circuit(MIXED)))
    assert sorted(names) == sorted(OURS)
    assert names[0] == ("fused" if prefers else "torch")


def test_without_a_kernel_torch_is_the_first_and_fused_is_left_out(
    monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]
) -> None:
    monkeypatch.setenv("QUANTA_KERNEL", "off")
    name_engine("")
    setting = setting_of(compile_circuit(MIXED))
    assert our_names(setting)[0] == "torch"
    with pytest.raises(LeftOutError, match="could not be built"):
        our_contestant("fused", setting)
    name_engine("portable")
    monkeypatch.delenv("QUANTA_KERNEL")
    if cpu.ready():
        with pytest.raises(LeftOutError, match=r"^QUANTA_ENGINE names another engine$"):
            our_contestant("fused", setting)


def test_a_slice_is_no_einsum() -> None:
    setting = setting_of(compile_circuit(MIXED))
    for make in RIVALS:
        with pytest.raises(LeftOutError, match="`slice` gate"):
            make(setting)


def test_the_structure_of_a_pauli_gate_is_no_einsum() -> None:
    setting = setting_of(compile_circuit(file_of("4x2", [{"axes": [0], "kind": "pauli"}])))
    for make in RIVALS:
        with pytest.raises(LeftOutError, match="`pauli` gate"):
            make(setting)


def test_more_indices_than_letters() -> None:
    setting = setting_of(compile_circuit(file_of("2x2x2x2x2", [{"pattern": "all_pairs", "repeat": 3}]), tokens=3))
    with pytest.raises(LeftOutError, match="knows 52 indices, the circuit has 66"):
        einsum_contestant(setting)
    for make in (gate_by_gate_contestant, opt_einsum_contestant):
        assert max(errors_of(make(setting), setting).values()) < 1e-4


def test_gates_keep_the_scale_whatever_the_file_begins_with() -> None:
    zero = compile_circuit(file_of("4x4", [{"axes": [0, 1], "init": "zeros"}]))
    assert 0.15 < float(draw_gates(zero, torch.float32)["g0"].std()) < 0.35


def test_a_low_rank_gate_is_never_written_out() -> None:
    circuit = compile_circuit(file_of("64x64", [{"axes": [0, 1], "kind": "lowrank", "rank": 2}]), tokens=2)
    contestant = opt_einsum_contestant(setting_of(circuit))
    assert sum(tensor.numel() for tensor in contestant.own) == 2 * 2 * 4096
    # 2 tokens in, 2 x 2 in between, 2 tokens out, and the factors: far from a matrix of 4096 x 4096.
    assert contestant.costs[FORWARD].bytes < 4 * 4096 * 4096 / 10


def test_search_is_as_thorough_as_it_can_be_at_once() -> None:
    assert [optimizer_for(count) for count in (2, 7, 8, 11, 12)] == ["optimal", "optimal", *["branch-2"] * 2, "auto"]


def test_other_layers() -> None:
    setting = setting_of(compile_circuit(file_of("4x4", ["all_pairs"], out_features=9), tokens=3))
    dense, lora = dense_layer(setting), lora_layer(setting, 8)
    x, _ = batch_of(setting)
    for contestant in (dense, lora):
        assert contestant.forward(x).shape == (3, 9)
    assert [parameter.shape for parameter in dense.parameters] == [(9, 16)]
    assert dense.costs[FORWARD].flops == 2 * 3 * 9 * 16
    assert dense.operator is None
    assert lora.operator is not None
    assert torch.allclose(lora.forward(x), x @ lora.operator().T, atol=1e-6)
    with pytest.raises(LeftOutError, match="more than the layer's rank, 9"):
        lora_layer(setting, 64)
