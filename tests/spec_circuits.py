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
    "rotations": HEAD
    + "layout: {a: 2, b: 2, c: 2, d: 12}\ninit: {scheme: normal, std: 0.5}\ngates:\n"
    + "  - {pattern: two_design, axes: [a, b, c]}\n"
    + "  - {pattern: two_design, axes: [c, a], layers: 2, repeat: 2, init: zeros, frozen: true}\n"
    + "  - {axes: [d], to: [6], kind: orthogonal, map: cayley, rank_parameters: 2, name: u}\n"
    + "  - {axes: [d], to: {e: 12}, share: u, transpose: true}\n"
    + "  - {axes: [c, e], kind: pauli, layers: 0, per: [b], frozen: true}\n"
    + "  - {axes: [a], kind: ry, per: rest, init: {scheme: normal}}\n  - {axes: [e, a], kind: cz}\n",
    "rotation_patterns": HEAD
    + "layout: 2x2x4\ninit: orthogonal\ngates:\n  - {pattern: each, kind: ry, axes: [0, 1], per: rest}\n"
    + "  - {pattern: ring, kind: cz, repeat: 2}\n  - {pattern: each, kind: orthogonal, map: cayley, to: {2: 3}}\n"
    + "  - {pattern: all_pairs, kind: pauli, layers: 2, rank_parameters: 1, to: {2: 4}, init: normal}\n",
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


def random_rotations(seed: int) -> dict[str, Any]:
    """Return a valid circuit of orthogonal gates, shared ones among them, and of patterns of such gates, as data."""
    rng = random.Random(f"rotations {seed}")
    layout = [2, *(rng.choice((1, 2, 2, 3, 4, 6, 8)) for _ in range(rng.randint(1, 4)))]
    sizes = list(layout)
    gates: list[Any] = []
    shapes: dict[str, tuple[int, int]] = {}
    for index in range(rng.randint(1, 8)):
        axes = rng.sample(range(len(sizes)), 2)
        twos = [axis for axis, size in enumerate(sizes) if size == 2]
        columns = sizes[axes[0]] * sizes[axes[1]]
        fitting = [name for name, shape in shapes.items() if shape == (columns, columns)]
        form = rng.choice(("cz", "pattern", "ry", "share", "square", "square", "resized", "resized"))
        if form == "cz":
            gates.append({"axes": axes, "kind": "cz"})
        elif form == "pattern":
            gates.append(_pattern(rng, twos))
        elif form == "ry" and twos:
            gates.append({"axes": [rng.choice(twos)], "kind": "ry", **_drawn(rng)})
        elif form == "share" and fitting:
            gates.append({"axes": axes, "share": rng.choice(fitting), "transpose": rng.random() < 0.5})
        else:
            gate: dict[str, Any] = {"axes": axes, "name": f"p{index}"}
            rows = columns
            if form == "resized":
                # One axis alone: of two, one could grow while the other shrinks.
                gate |= {"axes": axes[:1], "to": [rng.randint(1, 8)]}
                columns, rows = sizes[axes[0]], gate["to"][0]
                sizes[axes[0]] = rows
            gates.append(gate | _orthogonal(rng, rows, columns))
            shapes[gate["name"]] = (rows, columns)
    init = rng.choice(["orthogonal", "normal", "kaiming_uniform", {"scheme": "normal", "std": 0.1}])
    return {"version": 1, "name": f"rotations-{seed}", "layout": layout, "gates": gates, "init": init}


def _pattern(rng: random.Random, twos: list[int]) -> Any:
    """Choose a pattern of gates that any layout takes, or one on the axes of size 2."""
    if len(twos) < 2 or rng.random() < 0.3:
        return {"pattern": "ring", "kind": "cz"}
    if rng.random() < 0.5:
        return {"pattern": "two_design", "axes": twos, "layers": rng.randint(0, 3), "repeat": rng.randint(1, 2)}
    kind = rng.choice(({"kind": "ry"}, {"kind": "orthogonal", "map": "cayley"}, {"kind": "pauli", "layers": 0}))
    return {"pattern": "each", "axes": twos, **kind, **_drawn(rng)}


def _drawn(rng: random.Random) -> dict[str, Any]:
    return {"init": rng.choice(["zeros", "normal"]), "frozen": rng.random() < 0.3} if rng.random() < 0.6 else {}


def _orthogonal(rng: random.Random, rows: int, columns: int) -> dict[str, Any]:
    """Choose a kind of orthogonal matrix, and how many of its numbers are trained."""
    gate = {"kind": "orthogonal", "map": rng.choice(["exp", "cayley"])} | _drawn(rng)
    if rng.random() < 0.5:
        gate = {"kind": "pauli", "layers": rng.randint(0, 3)} | _drawn(rng)
    # A pauli gate on one index, or on one by one, has no angles.
    if rng.random() < 0.4 and max(rows, columns) > 1:
        gate["rank_parameters"] = rng.randint(1, min(rows, columns)) if gate["kind"] == "orthogonal" else 1
    return gate
