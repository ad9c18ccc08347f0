"""Named circuits for the tests of the graph and of the diagram, and small random ones that mix little."""

from __future__ import annotations

import random
from typing import Any

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.spec import load_spec


def circuit_of(layout: Any, gates: list[Any], **keys: Any) -> Circuit:
    """Return the circuit of a file with this layout and these gates."""
    return build_circuit(load_spec({"version": 1, "name": "test", "layout": layout, "gates": gates, **keys}))


def pair(*axes: Any, **keys: Any) -> dict[str, Any]:
    return {"axes": list(axes), **keys}


NAMED: dict[str, dict[str, Any]] = {
    "all-pairs-4": {"layout": "16x8x8x4", "gates": ["all_pairs"]},
    "all-pairs-5": {"layout": "8x8x4x4x4", "gates": ["all_pairs"]},
    "brick-8": {"layout": [2] * 8, "gates": ["brick"]},
    "kron": {"layout": "4x8x2", "gates": ["each"]},
    "one": {"layout": 4, "gates": [[0]]},
    "padded": {"layout": "16x8x8x5", "in_features": 5000, "out_features": 1024, "gates": ["all_pairs"]},
    "monarch": {
        "layout": {"a": 8, "b": 8},
        "gates": [pair("b", per=["a"], name="L"), pair("a", per=["b"], name="R")],
    },
    "lora": {
        "layout": {"x": 64},
        "gates": [pair("x", to={"r": 8}, name="A"), pair("r", to={"y": 32}, name="B")],
    },
    "tensor-train": {
        "layout": {"a": 16, "b": 8, "c": 8, "d": 4},
        "gates": [
            pair("a", to={"a": 16, "r1": 4}),
            pair("r1", "b", to={"b": 8, "r2": 4}),
            pair("r2", "c", to={"c": 8, "r3": 4}),
            pair("r3", "d", to={"d": 4}),
        ],
    },
    "kinds": {
        "layout": {"a": 8, "b": 4, "c": 4, "d": 2},
        "gates": [
            pair("a", "c"),
            pair("a", "b", kind="lowrank", rank=8, name="low"),
            pair("b", kind="diagonal"),
            pair("c", "d", kind="diagonal", name="phase", frozen=True),
            pair("a", kind="slice", to={"a": 4}),
            pair("d", kind="constant", value=[[1, 0], [0, 1]]),
            pair("a", "b", name="mixed"),
            pair("b", "c", share="mixed", transpose=True),
            pair("b", "d", per=["c"], frozen=True),
            pair("a", kind="slice", to={"a": 8}),
            pair("c", kind="lowrank", rank=2),
            pair("a", "d", kind="slice", to={"e": 4, "f": 4}),
        ],
        "output": ["e", "c", "b", "f"],
    },
    "two-design": {"layout": [2] * 6, "gates": [{"pattern": "two_design"}]},
    "quantum-peft": {
        "layout": {"x": 768},
        "gates": [
            pair("x", kind="pauli", to={"r": 8}, name="V"),
            pair("r", kind="diagonal", init="zeros", name="s"),
            pair("r", kind="pauli", to={"y": 1024}, name="U"),
        ],
    },
    "rotations": {
        "layout": {"a": 2, "b": 8, "c": 4, "d": 12},
        "gates": [
            pair("a", kind="ry"),
            pair("a", "c", kind="cz"),
            pair("b", kind="orthogonal"),
            pair("b", "c", kind="orthogonal", map="cayley", rank_parameters=4, per=["a"], frozen=True),
            pair("b", "c", kind="pauli", layers=2, rank_parameters=3, name="w"),
            pair("b", "c", share="w", transpose=True),
            pair("d", kind="pauli", to={"d": 6}),
            pair("a", "b", kind="cz"),
            pair("c", "d", kind="cz"),
            pair("a", kind="ry", per=["c"]),
        ],
    },
}


def named_circuit(name: str) -> Circuit:
    return build_circuit(load_spec({"version": 1, "name": name, **NAMED[name]}))


def random_circuit(seed: int, *, kinds: tuple[str, ...] = ("dense",), axes: int = 4, gates: int = 6) -> Circuit:
    """Return a circuit whose gates change, make and remove axes of sizes 2 and 3; `per` axes are among them."""
    draw = random.Random(seed)
    present = {name: draw.choice((2, 2, 3)) for name in "abcdefghijkl"[:axes]}
    layout = dict(present)
    steps: list[dict[str, Any]] = []
    for number in range(gates):
        names = draw.sample(sorted(present), min(len(present), draw.choice((1, 2, 2, 3))))
        touched, per = (names[:2], names[2:]) if draw.random() < 0.7 else (names[:1], names[1:])
        step = pair(*touched, kind=draw.choice(kinds))
        if step["kind"] == "cz" and len(touched) != 2:
            continue
        if per and step["kind"] not in ("slice", "cz"):
            step["per"] = per
        if step["kind"] == "lowrank":
            step["rank"] = 2
        if step["kind"] in ("dense", "lowrank") and draw.random() < 0.4:
            to = {name: draw.choice((2, 3)) for name in touched if len(present) < 3 or draw.random() < 0.7}
            if len(present) - len(touched) + len(to) < axes + 1 and (not to or draw.random() < 0.5):
                to[f"n{number}"] = 2
            step["to"] = to
            present = {name: size for name, size in present.items() if name not in touched} | to
        steps.append(step)
    order = sorted(present)
    draw.shuffle(order)
    return circuit_of(layout, steps, output=order)
