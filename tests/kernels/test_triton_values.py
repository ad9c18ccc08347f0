"""What the generated kernels compute, by Triton's interpreter: the results and gradients of float64, in every dtype."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, scaled_module
from fused_circuits import assert_close, gradients, on_both, vectors
from interpreted_kernels import cut, errors, interpreter, needs_triton  # noqa: F401 - a fixture
from random_circuits import error, file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.portable.engine import apply_table
from quanta_compiler.kernels.engines.triton import backward, forms
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.operator import apply_circuit

pytestmark = [needs_triton, pytest.mark.usefixtures("interpreter")]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
DEEP = (4, 7, 16, 20)
"""Seeds of many gates, which take seconds."""
GOALS = {"float32": (1e-6, 4.0), "float16": (1e-3, 2.0), "bfloat16": (0.0, 1.2), "bfloat16 beside float32": (2e-3, 1.2)}
"""An error is at most the first; or that of torch in the same dtype, times the second: random gates cancel, and then no
sum in this dtype is close. With gates of float32 it is that of one rounding."""
RANDOM = [
    pytest.param(seed, name, marks=[pytest.mark.slow] * (seed >= 24 or seed in DEEP or (seed + place) % len(GOALS) > 0))
    for seed in range(200)
    for place, name in enumerate(GOALS)
]
"""Twenty circuits are quick, in one of the dtypes each."""

CHOSEN: dict[str, dict[str, Any]] = {
    "pairs": file_of("4x4x2", ["all_pairs"]),
    "one gate for every index": file_of("4x3x2", [{"axes": [1], "per": [0]}, {"axes": [0, 2], "per": "rest"}]),
    "rectangular": file_of({"a": 4, "b": 3}, [{"axes": ["a"], "to": {"a": 7}}, {"axes": ["a", "b"], "to": [2, 5]}]),
    "axes that come and go": file_of(
        {"a": 3, "b": 4},
        [
            {"axes": ["a"], "to": {"a": 3, "new": 2}},
            {"axes": ["b"], "to": {}},
            {"axes": ["new", "a"], "per": []},
            {"axes": ["new"], "to": {"c": 5}},
        ],
    ),
    "padded": file_of("4x3", [[0, 1]], in_features=7, out_features=17),
    "cut": file_of("5x4", [[0], [1]], in_features=23, out_features=9),
    "no powers of two": file_of("3x5x7", ["all_pairs"]),
    "units": file_of("1x6x1", [[0, 1], [2], {"axes": [1], "per": [0]}]),
    "computed": file_of(
        "4x2x2",
        [
            {"pattern": "two_design", "axes": [1, 2], "layers": 2},
            {"axes": [0], "kind": "orthogonal", "init": "normal"},
            {"axes": [0, 1], "kind": "pauli", "init": "normal"},
            {"axes": [0, 2], "kind": "givens", "init": "normal"},
            {"axes": [1, 2], "kind": "cz"},
        ],
    ),
    "shared": file_of(
        "4x4x3",
        [{"axes": [0], "name": "m"}, {"axes": [1], "share": "m", "transpose": True}, {"axes": [0], "share": "m"}],
    ),
    "diagonal": file_of("4x6", [{"axes": [0], "kind": "diagonal"}, {"axes": [1], "kind": "diagonal", "per": [0]}, [1]]),
    "low rank": file_of(
        "8x6", [{"axes": [0, 1], "kind": "lowrank", "rank": 3}, {"axes": [0], "kind": "lowrank", "rank": 1, "per": [1]}]
    ),
    "low rank, whole": file_of("6x4", [{"axes": [0], "kind": "lowrank", "rank": 5, "to": [3]}]),
    "slices": file_of(
        "6x4", [{"axes": [0], "kind": "slice", "to": [3]}, [0, 1], {"axes": [1], "kind": "slice", "to": [9]}]
    ),
    "constant": file_of(
        "2x5", [{"axes": [0], "kind": "constant", "value": [[1, 0.5], [-2, 0.25], [0, 3]], "to": [3]}, [0]]
    ),
    "frozen": file_of("4x4", [{"axes": [0], "frozen": True}, [1], {"axes": [0, 1], "frozen": True}]),
    "moved alone": file_of("3x4", [{"axes": [0], "kind": "slice", "to": [5]}], in_features=10, output=[1, 0]),
    "one large gate": file_of(64, [[0]]),
}


def assert_as_good(circuit: CompiledCircuit, name: str, *lead: int) -> None:
    """Compare results and gradients with float64, and with what torch makes of the same circuit."""
    dtype, _, mixed = name.partition(" beside ")
    goal, times = GOALS[name]
    for ours, theirs in zip(*errors(circuit, getattr(torch, dtype), *lead, mixed=bool(mixed)), strict=True):
        assert ours <= max(goal, times * theirs)


@pytest.mark.parametrize(("seed", "name"), RANDOM)
def test_random_circuits_are_as_good_as_torch(seed: int, name: str) -> None:
    assert_as_good(compiled(seed), name, 2, 3)


@pytest.mark.parametrize("name", CHOSEN)
def test_everything_that_circuits_can_have(name: str) -> None:
    circuit = compile_circuit(CHOSEN[name])
    for goal in GOALS:
        assert_as_good(circuit, goal, 9)


@pytest.mark.parametrize("entries", [1, 2])
@pytest.mark.parametrize("name", CHOSEN)
def test_circuits_in_pieces(name: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a circuit does not fit a device; backward by segments, and not."""
    cut(monkeypatch, entries)
    monkeypatch.setattr(forms, "moved_in_segments", lambda *_, **__: 0 if entries == 2 else 2**60)
    assert_as_good(compile_circuit(CHOSEN[name]), "bfloat16 beside float32", 9)


@pytest.mark.slow
@pytest.mark.parametrize("entries", [1, 2])
@pytest.mark.parametrize("seed", range(60))
def test_random_circuits_in_pieces(seed: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, entries)
    for name in GOALS:
        assert_as_good(compiled(seed), name, 9)


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples(file: Path) -> None:
    circuit = compile_circuit(file)
    for name in GOALS:
        assert_as_good(circuit, name, 2)


@pytest.mark.parametrize("lead", [(), (0,), (1,), (7,), (9,), (40,), (2, 0, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", ["axes that come and go", "padded", "moved alone"])
def test_any_number_of_tokens_in_any_memory(name: str, lead: tuple[int, ...]) -> None:
    circuit = compile_circuit(CHOSEN[name])
    plain, fused = on_both(circuit, torch.float32)
    exact, width = copy.deepcopy(plain).double(), circuit.spec.in_features
    inputs = [
        torch.randn(width, *lead).movedim(0, -1),
        torch.randn(*lead, 2 * width)[..., ::2],
        torch.randn(width).expand(*lead, width),
    ]
    for x in inputs if len(lead) == 3 else [torch.randn(*lead, width)]:
        y, weights = fused(x), torch.randn(circuit.spec.out_features, *lead).movedim(0, -1)
        assert y.shape == (*lead, circuit.spec.out_features)
        assert y.is_contiguous()
        assert error(y, exact(x.double())) < 1e-6
        found, expected = gradients(fused, x, weights=weights), gradients(exact, x.double(), weights=weights)
        assert_close(found, {name: gradient.float() for name, gradient in expected.items()}, 2e-6)


WANTED = [
    *((name, 9) for name in ("pairs", "axes that come and go", "low rank", "computed")),
    ("shared", 1),
    ("slices", 2),
]


@pytest.mark.parametrize(("name", "entries"), WANTED)
def test_only_what_is_wanted_is_computed_and_the_same(name: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, entries)
    circuit = compile_circuit(CHOSEN[name])
    plain, fused = on_both(circuit)
    plain, fused = plain.double(), fused.float()
    x = vectors(circuit, 7)
    names = [name for name, _ in plain.named_parameters()]
    stored: list[tuple[int, ...]] = []
    whole = backward.Pass.run

    def noted(self: backward.Pass, *rest: Any) -> Any:
        stored.append(self.kernels.keep)
        return whole(self, *rest)

    monkeypatch.setattr(backward.Pass, "run", noted)
    for place, of_x in itertools.product(range(len(names) + 1), (False, True)):
        for module in (plain, fused):
            module.requires_grad_(False)
            for one in names[place : place + 1]:
                module.get_parameter(one).requires_grad_()
        stored.clear()
        found, expected = gradients(fused, x.float(), of_x=of_x), gradients(plain, x, of_x=of_x)
        assert_close(found, {name: gradient.float() for name, gradient in expected.items()}, 1e-5)
        assert len(stored) == (of_x or place < len(names))
        assert all(not keep for keep in stored if place == len(names)), "nothing is stored that no gate needs"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", [3, 6])
def test_two_runs_are_the_same_bits_and_tokens_do_not_meet(seed: int, dtype: torch.dtype) -> None:
    _, fused = on_both(compiled(seed), dtype)
    x = vectors(compiled(seed), 20, dtype=dtype)
    expected, of_all = fused(x), gradients(fused, x)
    assert torch.equal(fused(x), expected)
    assert all(torch.equal(gradient, of_all[name]) for name, gradient in gradients(fused, x).items())
    spoilt = x.clone()
    spoilt[9] = float("nan")
    assert torch.equal(fused(spoilt)[[*range(9), *range(10, 20)]], expected[[*range(9), *range(10, 20)]])
    assert torch.equal(fused(x[:9]), expected[:9])


@pytest.mark.parametrize("name", ["pairs", "padded", "low rank", "one gate for every index", "slices"])
def test_the_difference_of_a_circuit_and_its_frozen_copy_is_rounded_once(name: str) -> None:
    """As adapted layers ask for it: gates of float32 beside vectors of bfloat16, and a copy that is close to them."""
    text = str(scaled_module(compile_circuit(CHOSEN[name])).circuit)
    found = executable(text)
    generator = torch.Generator().manual_seed(1)
    own = [torch.randn(count, generator=generator) / 2 for count in found.numbers]
    minus = [one + torch.randn(one.shape, generator=generator) / 100 for one in own]
    x, grad = (torch.randn(2, 5, size).bfloat16() for size in (found.in_features, found.out_features))

    def kernels(x: torch.Tensor, given: list[torch.Tensor]) -> torch.Tensor:
        return apply_circuit(text, x, [*given, *minus])

    def exactly(x: torch.Tensor, given: list[torch.Tensor]) -> torch.Tensor:
        copies, flat = [one.double() for one in minus], x.reshape(-1, found.in_features)
        y = apply_table(found.table, flat, given) - apply_table(found.table, flat, copies)
        return y.reshape(*x.shape[:-1], found.out_features)

    def run(compute: Any, of_x: torch.dtype, of_gates: torch.dtype) -> list[torch.Tensor]:
        there, given = x.to(of_x, copy=True).requires_grad_(), [one.to(of_gates, copy=True) for one in own]
        given = [one.requires_grad_() for one in given]
        y = compute(there, given)
        return [y, *torch.autograd.grad(y, [there, *given], grad.to(of_x))]

    ours = run(kernels, torch.bfloat16, torch.float32)
    exact = run(exactly, torch.float64, torch.float64)
    assert [one.dtype for one in ours] == [torch.bfloat16] * 2 + [torch.float32] * len(own)
    for place, (one, other) in enumerate(zip(ours, exact, strict=True)):
        assert error(one, other) < (1.2 * error(other.bfloat16(), other) if place < 2 else 1e-5)
