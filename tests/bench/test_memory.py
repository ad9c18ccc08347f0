"""Bytes by hand, and as the report counts them."""

from __future__ import annotations

import pytest
import torch
from compiled_circuits import compiled, computed_kinds
from random_circuits import file_of
from torch.utils.checkpoint import checkpoint

from quanta_compiler.bench.contestants import Contestant, Setting, draw_gates
from quanta_compiler.bench.layers import lora_layer
from quanta_compiler.bench.memory import peak_bytes, saved_bytes
from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING
from quanta_compiler.bench.ours import our_contestant
from quanta_compiler.bench.roster import batch_of
from quanta_compiler.driver import CompiledCircuit, compile_circuit


def setting_of(circuit: CompiledCircuit) -> Setting:
    return Setting(circuit, torch.float32, draw_gates(circuit, torch.float32))


@pytest.mark.parametrize("seed", range(24))
def test_saved_and_peak_are_those_of_the_report(seed: int) -> None:
    setting = setting_of(compiled(seed))
    x, gradient = batch_of(setting)
    report, contestant = setting.compiled.report, our_contestant("torch", setting)
    near = 0.3 if computed_kinds(setting.compiled) else 0.0
    peak = round(report.apply.peak_bytes_per_token * setting.tokens)
    assert saved_bytes(contestant, x) == pytest.approx(report.apply.saved_bytes_per_token * setting.tokens, rel=near)
    assert peak_bytes(contestant, FORWARD, x, gradient) == pytest.approx(peak, rel=near)
    assert peak_bytes(contestant, OPERATOR, x, gradient) == pytest.approx(report.operator.peak_bytes, rel=near)


def test_bytes_by_hand() -> None:
    # 5 tokens of 12 numbers; the second gate's input is a permuted copy of the first one's result.
    setting = setting_of(compile_circuit(file_of("4x3", [[1], [0]]), tokens=5))
    x, gradient = batch_of(setting)
    batch = 4 * 5 * 12
    ours = our_contestant("torch", setting)
    assert saved_bytes(ours, x) == 2 * batch
    # x, A x, and B A x, each of them once; LoRA keeps x and A x.
    lora = lora_layer(setting, 8)
    assert saved_bytes(lora, x) == batch + 4 * 5 * 8
    assert peak_bytes(lora, FORWARD, x, gradient) == batch + 4 * 5 * 8 + batch
    # In backward the gradients of A x and of B come first, beside x, A x, the output's gradient; the output is gone.
    gradients = 4 * 8 * 12
    assert peak_bytes(lora, TRAINING, x, gradient) >= 2 * batch + 2 * gradients + batch


def test_a_recomputed_block_keeps_its_input_alone() -> None:
    setting = setting_of(compile_circuit(file_of("4x3x2", ["all_pairs"]), tokens=7))
    x, _ = batch_of(setting)
    plain = our_contestant("torch", setting)
    module: torch.nn.Module = plain.forward  # type: ignore[assignment]

    def recomputed(given: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(module, given, use_reentrant=False)
        return result

    contestant = Contestant("again", "", recomputed, plain.parameters, plain.own, plain.costs)
    assert saved_bytes(contestant, x) == x.nbytes
    assert saved_bytes(plain, x) > 2 * x.nbytes


def test_tensors_kept_aside_by_a_custom_function_are_seen() -> None:
    class Hoards(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
            ctx.hoard = x * 2  # type: ignore[attr-defined]
            return x + 1

    contestant = Contestant("hoard", "", Hoards.apply, (), (), {})
    x = torch.zeros(3, 8)
    assert saved_bytes(contestant, x) == x.nbytes


def test_what_has_no_graph_keeps_nothing() -> None:
    contestant = Contestant("constant", "", lambda x: torch.zeros(3, 8), (), (), {})
    assert saved_bytes(contestant, torch.zeros(3, 8)) == 0
