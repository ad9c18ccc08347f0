"""Valid circuit files that use every part of the format, and a generator of random ones."""

from __future__ import annotations

import random
from typing import Any

HEAD = "version: 1\nname: example\n"

FILES: dict[str, str] = {
    "smallest": HEAD + "layout: 4\ngates: [each]\n",
    "quanta": HEAD + "layout: 16x8x8x4\ngates:\n  - all_pairs\n",
    "dashes": HEAD + "layout: 16-8-8-5\ngates: [all_pairs, [0, -1]]\n",
    "named": HEAD + "layout: {row: 4, column: 8}\ngates: [[row], [1], {axes: [column, row]}]\noutput: [column, row]\n",
    "auto": HEAD + "layout: {auto: 3}\nin_features: 1009\nout_features: 64\ngates: [ring]\n",
    "padded": HEAD + "layout: [4, 4]\nin_features: 15\nout_features: 18\ngates: [chain]\n",
    "pattern": HEAD
    + "layout: 4x4x4\ngates:\n"
    + "  - {pattern: brick, repeat: 2, kind: lowrank, rank: 2, per: rest, init: zeros, to: {0: 2, -1: 6}}\n"
    + "  - {pattern: each, kind: diagonal, axes: [0, 2], frozen: true}\n",
    "axes_come_and_go": HEAD
    + "layout: 4x6\ngates:\n  - {axes: [0, 1], to: {c: 3, 1: 2, d: 2}, name: split}\n  - {axes: [d, c], to: [3, 1]}\n"
    + "  - {axes: [c], to: {}}\n  - {axes: [1], to: {c: 2, 1: 1}}\noutput: [c, 1, d]\n",
    "created_again": HEAD
    + "layout: {a: 4, b: 2}\ngates:\n  - {axes: [a], to: {c: 4}}\n  - {axes: [c], to: {a: 2}}\n  - [a, b]\n",
    "share": HEAD
    + "layout: 4x4\ngates:\n  - {axes: [0], to: [2], name: u, init: {scheme: normal, std: 1.0e-5}}\n"
    + "  - {axes: [0], to: [4], share: u, transpose: true}\n  - {axes: [1], to: [2], share: u}\n",
    "kinds": HEAD
    + "layout: {a: 2, b: 3}\ninit: normal\ngates:\n"
    + "  - {axes: [a], kind: constant, value: [[1, -2.5e-7], [.5, 1.0e+20]]}\n"
    + "  - {axes: [a, b], to: {n: 2, y: 2}, kind: slice}\n  - {axes: [n], per: [y], kind: lowrank, rank: 1}\n"
    + "  - {axes: [y], per: rest, init: orthogonal}\n",
    "odd_names": 'version: 1\nname: "null"\nlayout: {"on": 2, y: 2, "yes": 2, "true": 3, _: 1}\n'
    + 'gates:\n  - ["on", y]\n  - {axes: ["true"], name: "no", to: {"null": 2}}\n  - {axes: ["yes"], name: "off"}\n'
    + "plan: {tokens: 1, optimizer: branch-1}\n",
}


def random_circuit(seed: int) -> dict[str, Any]:
    """Return a valid circuit with gates of all kinds, as data."""
    rng = random.Random(seed)
    named = rng.random() < 0.5
    names: list[Any] = [f"a{i}" if named else i for i in range(rng.randint(1, 5))]
    sizes = {name: rng.randint(1, 4) for name in names}
    layout = dict(sizes) if named else list(sizes.values())
    gates: list[Any] = []
    shapes: dict[str, tuple[int, int]] = {}
    for index in range(rng.randint(1, 8)):
        axes = rng.sample(list(sizes), rng.randint(1, min(3, len(sizes))))
        columns = rows = 1
        for axis in axes:
            columns *= sizes[axis]
        gate: dict[str, Any] = {"axes": axes}
        choice = rng.random()
        if choice < 0.3:
            gate["to"] = [rng.randint(1, 4) for _ in axes]
            sizes.update(zip(axes, gate["to"], strict=True))
        elif choice < 0.5:
            kept = [axis for axis in axes if rng.random() < 0.6]
            to = {axis: rng.randint(1, 4) for axis in [*kept, f"n{index}"]}
            keys = list(to)
            rng.shuffle(keys)
            gate["to"] = {key: to[key] for key in keys}
            for axis in axes:
                if axis not in to:
                    del sizes[axis]
            sizes.update(to)
        after = gate["to"] if "to" in gate else {axis: sizes[axis] for axis in axes}
        for size in after.values() if isinstance(after, dict) else after:
            rows *= size
        gate |= _parameter(rng, gate, rows, columns, shapes)
        if gate.get("kind") not in ("slice", "constant") and "share" not in gate:
            if not shapes or rng.random() < 0.5:
                gate["name"] = f"p{index}"
            shapes[gate.get("name", f"g{index}")] = (rows, columns)
        gates.append(gate)
    return {"version": 1, "name": f"random-{seed}", "layout": layout, "gates": gates, "plan": {"tokens": 7}}


def _parameter(
    rng: random.Random, gate: dict[str, Any], rows: int, columns: int, shapes: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """Choose how the matrix of a gate is parameterized."""
    fitting = [name for name, shape in shapes.items() if shape == (columns, rows)]
    choice = rng.random()
    if choice < 0.2 and fitting:
        return {"share": rng.choice(fitting), "transpose": True}
    if choice < 0.3:
        return {"kind": "slice"}
    if choice < 0.4:
        return {"kind": "constant", "value": [[rng.gauss(0, 1) for _ in range(columns)] for _ in range(rows)]}
    if choice < 0.6:
        return {"kind": "lowrank", "rank": rng.randint(1, 3), "init": rng.choice(["zeros", "identity"])}
    return {"init": {"scheme": "normal", "std": rng.random() + 1e-9}, "frozen": rng.random() < 0.3}
