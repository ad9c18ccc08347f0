"""PEFT methods on a frozen layer."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from random_circuits import file_of

from quanta_compiler.bench.adapters import adapted_layer, frozen_weight
from quanta_compiler.bench.contestants import LeftOutError, Setting, draw_gates
from quanta_compiler.bench.options import ADAPTERS, FORWARD, TRAINING, Options
from quanta_compiler.bench.roster import batch_of
from quanta_compiler.bench.run import bench
from quanta_compiler.driver import compile_circuit
from quanta_compiler.system.extras import MissingExtraError

WIDE = file_of("16x8", ["all_pairs"])
QUICK = Options(rounds=2, threads=1, adapters=True, only=())


def setting_of(tokens: int = 4) -> Setting:
    circuit = compile_circuit(WIDE, tokens=tokens)
    return Setting(circuit, torch.float32, draw_gates(circuit, torch.float32))


def test_all_methods_on_one_layer() -> None:
    result = bench(compile_circuit(WIDE, tokens=4), replace(QUICK, only=ADAPTERS))
    assert [section.name for section in result.sections] == ["circuit", "adapters"]
    section = result.sections[1]
    left_out = {one.name for one in result.left_out}
    assert section.base == "bare"
    assert [one.name for one in section.contestants] == ["bare", *(name for name in ADAPTERS if name not in left_out)]
    assert left_out <= {"peft-boft", "peft-c3a"}
    for one in section.contestants:
        assert set(one.modes) == {FORWARD, TRAINING}
        assert all(figures.matmul_limit_ratio is None for figures in one.modes.values())
        base = result.contestants["bare"].modes[TRAINING].timing.seconds_median
        assert one.modes[TRAINING].ratio == pytest.approx(one.modes[TRAINING].timing.seconds_median / base)
    assert "ratio_to_bare_layer" in section.to_dict()["contestants"][0]["modes"][FORWARD]


def test_what_trains_and_what_is_kept() -> None:
    result = bench(compile_circuit(WIDE, tokens=4), replace(QUICK, only=("quanta-folded", "peft-lora-8")))
    bare, ours, lora = (result.contestants[name] for name in ("bare", "quanta-folded", "peft-lora-8"))
    assert (bare.trained_parameters, bare.saved_bytes) == (0, 0)
    assert ours.trained_parameters == 128 * 128
    assert lora.trained_parameters == 2 * 8 * 128
    batch = 4 * 4 * 128
    assert lora.saved_bytes == batch + 4 * 4 * 8
    # T = S + D is composed, and kept as well.
    assert ours.saved_bytes == batch + 4 * ours.trained_parameters


def test_the_weight_is_shared_and_stays_as_it_is() -> None:
    setting = setting_of()
    weight = frozen_weight(setting)
    before = weight.clone()
    x, _ = batch_of(setting)
    with torch.no_grad():
        expected = adapted_layer("bare", setting, weight).forward(x)
        for name in ("quanta-folded", "quanta-frozen-copy", "peft-lora-8"):
            contestant = adapted_layer(name, setting, weight)
            assert torch.allclose(contestant.forward(x), expected, atol=1e-5)
            assert weight.untyped_storage().data_ptr() in {
                tensor.untyped_storage().data_ptr() for tensor in contestant.own
            }
    assert torch.equal(weight, before)


def test_torchs_generator_is_not_moved() -> None:
    setting = setting_of()
    state = torch.get_rng_state()
    adapted_layer("peft-lora-8", setting, frozen_weight(setting))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_peft_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"measuring adapters needs peft.*\n.*quanta-compiler\[peft\]"):
        bench(compile_circuit(WIDE, tokens=4), replace(QUICK, only=("peft-lora-8", "quanta-folded")))


def test_blocks_that_do_not_divide_the_layer() -> None:
    circuit = compile_circuit(file_of("10x3", [[0, 1]]), tokens=2)
    setting = Setting(circuit, torch.float32, draw_gates(circuit, torch.float32))
    weight = frozen_weight(setting)
    with pytest.raises(LeftOutError, match="blocks of 128 do not divide the layer"):
        adapted_layer("peft-c3a", setting, weight)
    with pytest.raises(LeftOutError, match=r"."):
        adapted_layer("peft-boft", setting, weight)


def test_a_method_that_this_peft_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    monkeypatch.delattr(peft, "C3AConfig")
    setting = setting_of()
    with pytest.raises(LeftOutError, match="does not have it"):
        adapted_layer("peft-c3a", setting, frozen_weight(setting))
