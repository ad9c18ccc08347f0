"""How kernels are launched where `auto` measures: every tiling that fits is timed once, and the fastest is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import gradients, on_both, vectors
from interpreted_kernels import interpreter, needs_triton  # noqa: F401 - a fixture
from random_circuits import file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels import measured
from quanta_compiler.kernels.engines.triton import backward, forms, plans
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Launch, Number, Tiling
from quanta_compiler.kernels.engines.triton.launches import LaunchError, Launches, Place
from quanta_compiler.kernels.engines.triton.resources import Resources
from quanta_compiler.kernels.executable import executable
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.spec import load_spec

CIRCUIT = compile_circuit(file_of("3x4x2", ["all_pairs"], name="tilings"))
FITTING = [Tiling(8, 4), Tiling(4, 4), Tiling(2, 4)]
FASTEST = {"forward": 4, "states": 8, "segment": 2}
"""Tokens of a program, by what is launched."""

Seen = list[tuple[str, int]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Seen]:
    """Let three tilings fit every kernel, and take the time that they are told; return what was launched last."""
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path))
    monkeypatch.setattr(measured, "_KNOWN", {})
    monkeypatch.setattr(Launches, "_choices", lambda *_: FITTING)
    seen: Seen = []
    launch = Kernels.launch

    def launched(self: Kernels, what: Launch, *rest: Any) -> None:
        seen.append((what.kernel.title, what.tiling.tokens))
        launch(self, what, *rest)

    def fake(run: Callable[[], None], device: torch.device) -> float:
        seen.clear()
        run()
        return sum(1.0 + (tokens != FASTEST[title]) for title, tokens in seen) or 100.0

    monkeypatch.setattr(Kernels, "launch", launched)
    monkeypatch.setattr(measured, "_time", fake)
    yield seen
    measured._KNOWN.clear()


def launched(seen: Seen, module: Any, tokens: int) -> dict[str, int]:
    """Return the tokens of a program of every kernel of a step."""
    seen.clear()
    gradients(module, vectors(CIRCUIT, tokens, dtype=torch.float32))
    return dict(seen)


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_every_kernel_gets_its_fastest_tiling_and_other_processes_read_it(seen: Seen, tmp_path: Path) -> None:
    _, automatic = on_both(CIRCUIT, torch.float32, "auto")
    _, forced = on_both(CIRCUIT, torch.float32)
    first = {"forward": 8, "states": 8, "segment": 8}
    assert launched(seen, forced, 5) == first, "a named engine takes what fits first"
    assert launched(seen, automatic, 5) == FASTEST
    told = "triton, 1 kernel of 4 tokens, backward in 2 segments; faster than torch in 1 of 1 kind of call"
    assert told in repr(automatic)
    assert launched(seen, forced, 9) == first, "another number of tokens is another kind"
    (kept,) = tmp_path.glob("choice-*.json")
    found = json.loads(kept.read_text())
    assert (found["engine"], found["torch"]) == (4.0, 100.0)
    assert sorted(found["tilings"].values()) == [[2, 4], [2, 4], [4, 4], [8, 4]]
    for damaged in (False, True):
        if damaged:
            kept.write_text(json.dumps({**found, "tilings": {"a kernel": [3]}}))
        measured._KNOWN.clear()
        executable.cache_clear()
        _, automatic = on_both(CIRCUIT, torch.float32, "auto")
        seen.clear()
        automatic(vectors(CIRCUIT, 5, dtype=torch.float32).requires_grad_())
        assert damaged or seen == [("forward", 4)], "nothing is timed"
        assert launched(seen, automatic, 5) == FASTEST


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_what_one_measurement_has_chosen_the_next_one_keeps(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a backward pass the same forward kernel is launched."""
    _, automatic = on_both(CIRCUIT, torch.float32, "auto")
    assert launched(seen, automatic, 5)["forward"] == 4
    monkeypatch.setitem(FASTEST, "forward", 2)
    with torch.no_grad():
        automatic(vectors(CIRCUIT, 5, dtype=torch.float32))
    assert seen == [("forward", 4)]


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_the_form_of_backward_is_chosen_once_until_a_plan_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = forms.is_cheaper_in_segments

    def noted(table: Any, keep: tuple[int, ...], *, minus: bool) -> bool:
        asked.append(keep)
        return plain(table, keep, minus=minus)

    monkeypatch.setattr(backward, "is_cheaper_in_segments", noted)
    _, module = on_both(CIRCUIT, torch.float32)
    for tokens, of_x in ((5, True), (6, True), (5, False), (9, True)):
        for _ in range(2):
            gradients(module, vectors(CIRCUIT, tokens, dtype=torch.float32), of_x=of_x)
    assert len(asked) == 3, "5 and 6 tokens are of one kind"
    runner = executable(str(module.circuit)).runner(torch.device("cpu"), torch.float32)
    runner.choose(torch.device("cpu"), {})
    gradients(module, vectors(CIRCUIT, 5, dtype=torch.float32))
    assert len(asked) == 4


def test_a_tiling_that_is_not_launched_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is only tried must not cost a circuit all its kernels."""
    found = Launches(lower_table(build_circuit(load_spec(file_of("4x4", ["all_pairs"])))))
    here, kernel, number = torch.device("cpu"), Kernel("forward", 0, 1), Number(torch.float32, torch.float32, "tf32")

    def launched(_: Kernels, what: Launch, *rest: Any) -> None:
        if what.tiling.tokens == 2:
            raise RuntimeError("out of resource: threads")

    def plan() -> plans.Plan:
        return found.plan(kernel, number, here, 5)

    monkeypatch.setattr(Kernels, "launch", launched)
    name, x = Place(kernel, number, here, 3).name, torch.ones(5, 16)
    tried, other = (Launch(kernel, Tiling(tokens, 4)) for tokens in (2, 4))
    assert plan() not in ((tried,), (other,))
    found.choose(here, {name: tried.tiling})
    assert plan() == (tried,)
    with pytest.warns(RuntimeWarning, match="could not be launched"), pytest.raises(LaunchError):
        found.launch(tried, number, 5, 3, [x])
    assert isinstance(plan(), plans.Refusal)
    found.choose(here, {name: other.tiling})
    assert plan() == (other,)


def test_few_of_the_tilings_that_fit_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Kernels(lower_table(build_circuit(load_spec(file_of("16x8x8x4", ["all_pairs"])))))
    kernel, number = Kernel("forward", 0, 6), Number(torch.bfloat16, torch.bfloat16, "tf32")

    def needs(_: Kernels, kernel: Kernel, tiling: Tiling, number: Number, arch: int) -> Resources | str:
        if tiling == (2, 8):
            return "CompilationError: it is monday"
        return Resources(128, 8 * (tiling.tokens > 4), 1024, 16)

    monkeypatch.setattr(plans, "resources", needs)
    found = plans.choices(kernels, kernel, number, 90)
    assert found == [(4, 8), (2, 4), (1, 4)]
    assert plans.fitting(kernels, number, 90)(kernel) == found[0]
    monkeypatch.setattr(plans, "resources", lambda *_: Resources(128, 0, 1024, 16))
    assert len(plans.choices(kernels, kernel, number, 90)) == plans.CHOICES


def test_places_have_one_name_on_all_devices_of_a_kind() -> None:
    kernel, number = Kernel("forward", 0, 6), Number(torch.bfloat16, torch.bfloat16, "tf32")
    first, second = (Place(kernel, number, torch.device("cuda", index), 5) for index in range(2))
    assert first.name == second.name != first._replace(bucket=6).name
