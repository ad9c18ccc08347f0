"""Modules on a backend as citizens of torch: copies, state dicts, what they keep for backward, threads, processes."""

from __future__ import annotations

import copy
import copyreg
import io
import os
import pickle
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import peak_meter, saved_bytes
from fused_circuits import assert_close, executable_of, gradients, on_both, threads, vectors
from random_circuits import error, file_of
from torch.nn.utils import parametrize, prune

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.runtime.backends import BACKENDS
from quanta_compiler.runtime.loading import load_class

ROOT = Path(__file__).parents[2]
VARIANTS = [(backend, recompute) for backend in BACKENDS for recompute in (False, True)]


# Copies


@pytest.mark.parametrize(("backend", "recompute"), VARIANTS)
def test_copies_compute_the_same_by_the_same_class(mixed: CompiledCircuit, backend: str, recompute: bool) -> None:
    plain, module = on_both(mixed, backend=backend, recompute=recompute)
    x = vectors(mixed, 11)
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    copies = (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(stream, weights_only=False))
    for other in copies:
        assert type(other) is type(module) is load_class(mixed.source, backend, recompute)
        assert torch.equal(other(x), module(x))
        assert {p.data_ptr() for p in other.parameters()}.isdisjoint(p.data_ptr() for p in module.parameters())
    assert error(module(x), plain(x)) < 1e-12
    assert re.sub(r"\n  engine: .*", "", repr(module)) == repr(plain)


def test_state_dicts_are_exchanged_between_backends(mixed: CompiledCircuit) -> None:
    x = vectors(mixed, 4)
    whole, _ = on_both(mixed)
    for backend, recompute in VARIANTS:
        module = mixed.module(seed=3, dtype=torch.float64, backend=backend, recompute=recompute)
        assert list(module.state_dict()) == list(whole.state_dict())
        for key, tensor in mixed.module(seed=3, dtype=torch.float64, backend="torch").state_dict().items():
            assert torch.equal(module.state_dict()[key], tensor)
        module.load_state_dict(whole.state_dict())
        assert error(module(x), whole(x)) < 1e-12
        assert isinstance(module, load_class(mixed.source))


def test_a_module_goes_where_it_is_sent(mixed: CompiledCircuit) -> None:
    _, fused = on_both(mixed, torch.float32)
    x = vectors(mixed, 5)
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
        assert fused.to(dtype)(x.to(dtype)).dtype == dtype


LOAD = """
import pickle, sys, torch
torch.set_num_threads(1)
import quanta_compiler.kernels.operator
modules, x = pickle.load(open(sys.argv[1] + "/modules.pickle", "rb"))
program = torch.export.load(sys.argv[1] + "/program.pt2")
expected = torch.load(sys.argv[1] + "/expected.pt")
for module, result in zip([*modules, program.module()], expected, strict=True):
    assert torch.equal(module(x), result)
print([getattr(type(module), "quanta_variant", None) for module in modules])
"""


def test_pickles_and_exported_programs_run_in_another_process(mixed: CompiledCircuit, tmp_path: Path) -> None:
    x = vectors(mixed, 11)
    made = [on_both(mixed, backend=backend, recompute=recompute)[1] for backend, recompute in VARIANTS]
    _, fused = on_both(mixed)
    program = torch.export.export(fused, (vectors(mixed, 4),), dynamic_shapes={"x": {0: torch.export.Dim("n")}})
    torch.export.save(program, tmp_path / "program.pt2")
    (tmp_path / "modules.pickle").write_bytes(pickle.dumps((made, x)))
    torch.save([module(x).detach() for module in (*made, fused)], tmp_path / "expected.pt")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str([getattr(type(module), "quanta_variant", None) for module in made])


def test_a_copy_of_the_emitted_module_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `auto` has taken for the same circuit before."""
    monkeypatch.setattr(cpu, "prefers", lambda *_: False)
    circuit = compile_circuit(file_of("2x7", [[0, 1]], name="chosen"))
    automatic, plain = circuit.module(backend="auto"), circuit.module(backend="torch")
    assert type(plain).forward is load_class(circuit.source).forward
    assert type(automatic).forward is type(plain).forward
    reduced: Any = copyreg.dispatch_table[type(plain)](plain)
    _, *how = reduced[1]
    assert tuple(how) in ((), ("torch", False)), "another process may choose otherwise"


def test_auto_runs_what_is_expected_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for prefers, name in ((True, "fused"), (False, "torch")):
        monkeypatch.setattr(cpu, "prefers", lambda *_, prefers=prefers: prefers)
        circuit = compile_circuit(file_of("3x7", [[0, 1], [1]], name=f"chosen-{name}"))
        plain, automatic = on_both(circuit, backend="auto")
        expected = plain if name == "torch" else on_both(circuit)[1]
        executable_of(automatic)
        x = vectors(circuit, 37)
        assert torch.equal(automatic(x), expected(x))
        # What the kernel does not know goes to the emitted file.
        half, plain_half = copy.deepcopy(automatic).half(), copy.deepcopy(plain).half()
        assert torch.equal(half(x.half()), plain_half(x.half()))


# Memory


def test_nothing_but_the_input_is_kept() -> None:
    circuit = compile_circuit(file_of("4x3x2", ["all_pairs", "all_pairs", {"axes": [0], "kind": "diagonal"}]))
    tokens, given = 100, 100 * 24 * 4
    x = vectors(circuit, tokens, dtype=torch.float32).requires_grad_()
    alive = {}
    for backend, recompute in VARIANTS:
        _, module = on_both(circuit, torch.float32, backend, recompute)
        alive[backend, recompute] = alive_after(module, x)
        if backend == "fused":
            assert saved_bytes(module, partial(module, x)) == given
            # A linear map's gradient does not depend on its input.
            assert saved_bytes(module.requires_grad_(False), partial(module, x)) == 0
            assert saved_bytes(module, partial(module, x.detach())) == 0
    # The input is the caller's, and there all the time; the result is as large.
    assert alive["fused", False] == alive["fused", True] == alive["torch", True] == alive["auto", True] == given
    assert alive["torch", False] > 2 * given


def alive_after(module: torch.nn.Module, x: torch.Tensor) -> int:
    """Return the bytes of all that a forward pass has made and that is alive after it, the result included."""
    with peak_meter(module, x) as meter:
        y = module(x)
    found = int(meter.live())
    del y
    return found


# Threads and processes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_python_threads_may_share_a_module(mixed: CompiledCircuit, dtype: torch.dtype) -> None:
    _, fused = on_both(mixed, dtype)
    batches = [vectors(mixed, 70 + place, dtype=dtype, seed=place) for place in range(4)]
    expected = [gradients(fused, x) for x in batches]
    wrong: list[str] = []

    def work(place: int) -> None:
        for _ in range(20):
            found = gradients(fused, batches[place])
            wrong.extend(name for name, tensor in found.items() if not torch.equal(tensor, expected[place][name]))

    workers = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_forked_process_computes_the_same(mixed: CompiledCircuit) -> None:
    """As a data loader's worker does, which has one thread."""
    _, fused = on_both(mixed, torch.float32)
    x = vectors(mixed, 50, dtype=torch.float32)
    with threads(2):
        expected = fused(x).detach()
    context = torch.multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work() -> None:
        torch.set_num_threads(1)
        results.put(torch.equal(fused(x), expected))

    process = context.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get()


# Without gradients, and with gates that others have changed


def test_without_gradients(mixed: CompiledCircuit) -> None:
    _, fused = on_both(mixed, torch.float32)
    x = vectors(mixed, 17, dtype=torch.float32).requires_grad_()
    expected = fused(x)
    with torch.no_grad():
        y = fused(x)
    assert not y.requires_grad
    assert torch.equal(y, expected)
    with torch.inference_mode():
        y = fused(x)
    assert y.is_inference()
    assert torch.equal(y, expected)
    assert fused(torch.zeros(2, 20)).requires_grad
    assert not fused.requires_grad_(False)(torch.zeros(2, 20)).requires_grad


@pytest.mark.parametrize("place", ["input", "gate"])
def test_what_is_changed_before_backward_is_an_error(mixed: CompiledCircuit, place: str) -> None:
    _, fused = on_both(mixed)
    x = vectors(mixed, 3).requires_grad_() * 1
    y = fused(x)
    with torch.no_grad():
        (x if place == "input" else fused.get_parameter("gates.dense")).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_parametrized_and_pruned_gates(mixed: CompiledCircuit) -> None:
    pruning: Any = prune

    class Twice(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    plain, fused = on_both(mixed)
    for module in (plain, fused):
        parametrize.register_parametrization(module.gates, "dense", Twice())
        pruning.random_unstructured(module.gates, "shared_later", amount=0.0)
        pruning.l1_unstructured(module.gates.low, "B", amount=5)
    x = vectors(mixed, 12)
    assert error(fused(x), plain(x)) < 1e-12
    assert_close(gradients(fused, x), gradients(plain, x), 1e-11)
