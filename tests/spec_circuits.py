"""Valid circuit files that use every part of the format."""

from __future__ import annotations

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
