"""A circuit of RY and CZ beside PennyLane, beside gate-by-gate torch, and beside four dense blocks.

    python tests/benchmarks/rotations.py [--tokens 1024] [--states 256] [--rounds 7] [--threads 1] [--json]

The simplified two-design circuit of 12 qubits and one layer, 34 angles, on real vectors of 4096 numbers in float32;
forward, and forward + backward with gradients of the input and of the angles. All run in turn in one process, in an
order shuffled for each round; medians. Results and gradients are compared with float64 before anything is timed.

Ours is the pattern `two_design` on twelve axes of size 2, and a `pauli` gate on one axis of 4096, on both backends.
PennyLane is `default.qubit` with backprop, the batch as broadcast states, so many at a time that they fit in memory
(`--states`): its CZ brings them to complex128. In single precision the CZ is a 4 x 4 unitary in complex64. Gate by gate
is what one writes in torch: RY a 2 x 2 product on an axis, CZ a product with signs; by einsum, and the fastest of
five ways that were tried (`tensordot`, the signs of all entries made before). The goals are for forward + backward.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pennylane as qml
import torch

from quanta_compiler.bench.timing import WIDE_SPREAD, Job, Timing, measure, torch_threads
from quanta_compiler.driver import compile_circuit
from quanta_compiler.system.machine import describe_machine

QUBITS = 12
WIDTH = 1 << QUBITS
ANGLES = 3 * QUBITS - 2
MODES = ("forward", "forward + backward")
GOALS = {"pennylane": 60, "gate by gate, einsum": 10, "gate by gate, fastest": 10}
"""How many times as fast as these the circuit is to be, forward and backward."""
Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Contestant:
    """A way to apply the circuit: `[tokens, 4096] -> [tokens, 4096]`, so many tokens at a time."""

    name: str
    apply: Callable[[torch.Tensor], torch.Tensor]
    angles: tuple[torch.Tensor, ...]
    """What gradients are taken of beside the input."""
    at_once: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the result without what backward would need."""
        with torch.no_grad():
            return torch.cat([self.apply(part) for part in torch.split(x, self.at_once)])

    def step(self, x: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of the input, `[tokens, 4096]`, and of the angles, `[angles]`."""
        of_x, of_angles = [], []
        for part, weights in zip(torch.split(x, self.at_once), torch.split(gradient, self.at_once), strict=True):
            given = part.detach().requires_grad_()
            y = self.apply(given)
            first, *rest = torch.autograd.grad(y, [given, *self.angles], weights.to(y.dtype))
            of_x.append(first)
            of_angles.append(torch.cat([tensor.flatten() for tensor in rest]))
        return torch.cat(of_x), torch.stack(of_angles).sum(0)


def walk(turn: Callable[[int, int], None], sign: Callable[[int], None]) -> None:
    """Go through the circuit: `turn(wire, angle)` for an RY, `sign(wire)` for a CZ on a wire and the next."""
    angle = 0
    for pairs in (None, range(0, QUBITS - 1, 2), range(1, QUBITS - 1, 2)):
        for wire in pairs or ():
            sign(wire)
        for wire in range(QUBITS) if pairs is None else [wire + side for wire in pairs for side in (0, 1)]:
            turn(wire, angle)
            angle += 1


def turning(angle: torch.Tensor) -> torch.Tensor:
    """Return the 2 x 2 matrix of an RY."""
    cosine, sine = torch.cos(angle / 2), torch.sin(angle / 2)
    return torch.stack([cosine, -sine, sine, cosine]).view(2, 2)


def by_einsum(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Apply the gates one by one, axes named."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=x.dtype)
    state = x

    def turn(wire: int, angle: int) -> None:
        nonlocal state
        axes = state.reshape(len(x), 1 << wire, 2, -1)
        state = torch.einsum("ij,najb->naib", turning(angles[angle]), axes).reshape(x.shape)

    def sign(wire: int) -> None:
        nonlocal state
        state = (state.view(len(x), 1 << wire, 2, 2, -1) * signs[:, :, None]).view(x.shape)

    walk(turn, sign)
    return state


def all_signs() -> torch.Tensor:
    """Return the signs of the CZ on every wire and the next, `[11, 4096]`."""
    bits = torch.arange(WIDTH) >> torch.arange(QUBITS - 1, -1, -1)[:, None] & 1
    return 1.0 - 2.0 * (bits[:-1] * bits[1:])


def fastest(signs: torch.Tensor) -> Function:
    """Return what applies the gates one by one on a tensor of twelve axes."""

    def apply(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        state = x

        def turn(wire: int, angle: int) -> None:
            nonlocal state
            axes = state.view(len(x), *[2] * QUBITS)
            turned = torch.tensordot(turning(angles[angle]), axes, ([1], [wire + 1]))
            state = turned.movedim(0, wire + 1).reshape(x.shape)

        def sign(wire: int) -> None:
            nonlocal state
            state = state * signs[wire].to(x.dtype)

        walk(turn, sign)
        return state

    return apply


def by_pennylane(*, single: bool) -> Function:
    """Return what applies the circuit in PennyLane and gives the real part of the states."""
    unitary = torch.diag(torch.tensor([1, 1, 1, -1], dtype=torch.complex64))

    def sign(wire: int) -> None:
        wires = (wire, wire + 1)
        qml.QubitUnitary(unitary, wires=wires) if single else qml.CZ(wires=wires)

    def circuit(x: torch.Tensor, angles: torch.Tensor) -> Any:
        qml.StatePrep(x, wires=range(QUBITS), validate_norm=False)
        walk(lambda wire, angle: qml.RY(angles[angle], wires=wire), sign)
        return qml.state()

    device = qml.device("default.qubit", wires=QUBITS)
    node = qml.QNode(circuit, device, interface="torch", diff_method="backprop")

    def apply(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = node(x, angles)
        return states.real

    return apply


def dense_blocks(tokens: int) -> Contestant:
    """Return four dense blocks of 64 x 64 in turn on both halves of the wires: a floor, another function."""
    blocks = [torch.linalg.qr(torch.randn(64, 64))[0].requires_grad_() for _ in range(4)]

    def apply(x: torch.Tensor) -> torch.Tensor:
        state = x.view(-1, 64, 64)
        for block in blocks:
            state = (state @ block.t()).transpose(1, 2)
        return state.reshape(x.shape)

    return Contestant("four dense blocks of 64", apply, tuple(blocks), tokens)


def contestants(angles: torch.Tensor, tokens: int, states: int) -> list[Contestant]:
    """Return everybody who applies the circuit with these angles."""
    layouts: dict[str, Any] = {
        "two_design": {"layout": [2] * QUBITS, "gates": ["two_design"]},
        "pauli": {"layout": WIDTH, "gates": [{"axes": [0], "kind": "pauli"}]},
    }
    found = []
    for name, keys in layouts.items():
        compiled = compile_circuit({"version": 1, "name": name, **keys}, tokens=tokens)
        for backend in ("torch", "fused"):
            module = compiled.module(backend=backend)
            torch.nn.utils.vector_to_parameters(angles, module.parameters())
            found.append(Contestant(f"ours, {name}, {backend}", module, tuple(module.parameters()), tokens))
    others: dict[str, tuple[Function, int]] = {
        "gate by gate, einsum": (by_einsum, tokens),
        "gate by gate, fastest": (fastest(all_signs()), tokens),
        "pennylane": (by_pennylane(single=False), states),
        "pennylane, single precision": (by_pennylane(single=True), states),
    }
    for name, (function, at_once) in others.items():
        own = angles.clone().requires_grad_()

        def apply(x: torch.Tensor, function: Function = function, own: torch.Tensor = own) -> torch.Tensor:
            return function(x, own)

        found.append(Contestant(name, apply, (own,), at_once))
    return found


def check(everybody: Sequence[Contestant], angles: torch.Tensor) -> dict[str, float]:
    """Return how far each is from gate by gate in float64, of the norm: the worst of the result and the gradients.

    Raises:
        SystemExit: somebody computes something else.

    """
    x, gradient = torch.nn.functional.normalize(torch.randn(2, 5, WIDTH), dim=-1)
    exact_angles = angles.double().requires_grad_()
    exact = Contestant("", lambda given: by_einsum(given, exact_angles), (exact_angles,), len(x))
    expected = (exact.forward(x.double()), *exact.step(x.double(), gradient.double()))
    errors = {}
    for one in everybody:
        pairs = zip((one.forward(x), *one.step(x, gradient)), expected, strict=True)
        errors[one.name] = max(float((found.double() - wanted).norm() / wanted.norm()) for found, wanted in pairs)
        if errors[one.name] > 1e-5:
            raise SystemExit(f"{one.name} is wrong by {errors[one.name]:.1e}")
    return errors


def timed(everybody: Sequence[Contestant], tokens: int, rounds: int) -> dict[tuple[str, str], Timing]:
    """Run everybody in turn; return the times by name and mode."""
    x, gradient = torch.nn.functional.normalize(torch.randn(2, tokens, WIDTH), dim=-1)

    def repeated(run: Callable[[], object]) -> Callable[[int], None]:
        def repeat(count: int) -> None:
            for _ in range(count):
                run()

        return repeat

    jobs = []
    for one in everybody:
        jobs.append(Job((one.name, MODES[0]), repeated(lambda one=one: one.forward(x))))  # type: ignore[misc]
        jobs.append(Job((one.name, MODES[1]), repeated(lambda one=one: one.step(x, gradient))))  # type: ignore[misc]
    for job in jobs:
        job.run(1)
    found: dict[Any, Timing] = measure(jobs, rounds)
    return found


def measurement(options: argparse.Namespace) -> dict[str, Any]:
    """Check and time everybody; return plain data."""
    torch.manual_seed(0)
    angles = torch.randn(ANGLES)
    everybody = contestants(angles, options.tokens, min(options.states, options.tokens))
    errors = check(everybody, angles)
    everybody.append(dense_blocks(options.tokens))
    times = timed(everybody, options.tokens, options.rounds)
    seconds = {one.name: {mode: times[one.name, mode].seconds_median for mode in MODES} for one in everybody}
    ours = [name for name in seconds if name.startswith("ours")]
    best = min(ours, key=lambda name: seconds[name][MODES[1]])
    return {
        "tokens": options.tokens,
        "states_at_once": options.states,
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": {**describe_machine(), "pennylane": qml.__version__},
        "seconds": seconds,
        "spread": {one.name: {mode: times[one.name, mode].spread for mode in MODES} for one in everybody},
        "errors": errors,
        "best": best,
        "goals": [
            {"against": rival, "goal": goal, "ratio": seconds[rival][MODES[1]] / seconds[best][MODES[1]]}
            for rival, goal in GOALS.items()
        ],
    }


def text(found: dict[str, Any]) -> str:
    """Return the table in Markdown, and whether the goals are met."""
    best = found["seconds"][found["best"]]
    lines = [
        f"## The two-design circuit of {QUBITS} qubits, one layer, {found['tokens']:,} tokens, float32",
        "",
        "| | forward, ms | / best of ours | forward + backward, ms | / best of ours | error |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for name, seconds in found["seconds"].items():
        cells = [
            cell for mode in MODES for cell in (f"{1e3 * seconds[mode]:,.3g}", f"{seconds[mode] / best[mode]:.2f}")
        ]
        error = found["errors"].get(name)
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if error is None else f'{error:.0e}'} |")
    machine = found["machine"]
    lines += ["", f"The best of ours, forward + backward: {found['best']}."]
    for goal in found["goals"]:
        verdict = "met" if goal["ratio"] >= goal["goal"] else "MISSED"
        lines.append(f"- {goal['ratio']:.1f} times as fast as {goal['against']}; goal {goal['goal']}: {verdict}.")
    wide = [name for name, modes in found["spread"].items() if max(modes.values()) > WIDE_SPREAD]
    if wide:
        lines.append(f"- Quartiles more than {WIDE_SPREAD:.0%} of the median apart: {'; '.join(wide)}.")
    where = f"{machine['processor']}, {found['threads']} of {machine['cores']} cores; torch {machine['torch']}"
    lines += ["", f"{where}, PennyLane {machine['pennylane']}; medians of {found['rounds']} rounds."]
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table or the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--states", type=int, default=256, help="how many tokens PennyLane takes at a time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print all data")
    options = parser.parse_args()
    with torch_threads(options.threads):
        found = measurement(options)
    print(json.dumps(found, indent=1) if options.json else text(found))


if __name__ == "__main__":
    main()
