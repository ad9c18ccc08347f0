"""Golden error texts, one wrong file each, and files with many mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.spec import load_spec

HEAD = "version: 1\nname: example\nlayout: 16x8x8x4\n"
PRESET = "version: 1\nname: example\n"
BITS = "version: 1\nname: example\nlayout: {a: 2, b: 2, c: 2}\n"
NAMED = "version: 1\nname: example\nlayout: {row: 8, column: 4}\n"

WRONG: dict[str, str] = {
    "not_a_mapping": "- 1\n- 2\n",
    "missing_keys": "name: example\nlayout: 4x4\n",
    "version": "version: 3\nname: example\nlayout: 4x4\ngates: [each]\n",
    "unknown_key": HEAD + "gates: [each]\ninfeatures: 5\n",
    "misspelt_required_key": "version: 1\nname: example\nlayot: 4x4\ngates:\n  - [0, 1]\n",
    "unknown_pattern": HEAD + "gates:\n  - all-pair\n",
    "unknown_kind": HEAD + "gates:\n  - {axes: [0], kind: low_rank, rank: 2}\n",
    "unknown_init": HEAD + "init: kaiming\ngates: [each]\n",
    "unknown_optimizer": HEAD + "gates: [each]\nplan: {optimizer: optimal}\n",
    "axis_out_of_range": HEAD + "gates:\n  - [0, 1]\n  - axes: [2, 4]\n    name: g3\n",
    "axis_listed_twice": HEAD + "gates:\n  - [1, -3]\n",
    "axis_misspelt": NAMED + "gates:\n  - [row, colum]\n",
    "axis_removed": NAMED + "gates:\n  - {axes: [row, column], to: {all: 32}, name: join}\n  - [row]\n  - [0]\n",
    "axis_in_use": NAMED + "gates:\n  - {axes: [row], to: {column: 8}}\n",
    "axis_reserved": NAMED + "gates:\n  - {axes: [row], to: {rest: 4, lambda: 2}}\n",
    "to_length": HEAD + "gates:\n  - {axes: [0, 1], to: [16]}\n",
    "per_overlaps": HEAD + "gates:\n  - {axes: [0, 1], per: [1, 2]}\n",
    "rank_missing": HEAD + "gates:\n  - axes: [0, 1]\n    kind: lowrank\n",
    "rank_not_allowed": HEAD + "gates:\n  - {axes: [0, 1], rank: 2}\n",
    "boolean_for_integer": HEAD
    + "in_features: yes\ngates:\n  - {axes: [0, true]}\n  - {pattern: each, repeat: true}\n",
    "diagonal_not_square": HEAD + "gates:\n  - {axes: [0], kind: diagonal, to: [8]}\n",
    "constant_shape": HEAD + "gates:\n  - {axes: [3], kind: constant, value: [[1, 0], [0, 1]]}\n",
    "constant_not_finite": HEAD + "gates:\n  - {axes: [3], to: [1], kind: constant, value: [[1, .nan, -.inf, a]]}\n",
    "share_misspelt": HEAD + "gates:\n  - {axes: [0], name: first}\n  - {axes: [0], share: frist}\n",
    "share_later": HEAD + "gates:\n  - {axes: [0], share: b}\n  - {axes: [0], name: b}\n",
    "share_shape": HEAD + "gates:\n  - {axes: [0], to: [4], name: down}\n  - {axes: [0], to: [16], share: down}\n",
    "share_of_constant": HEAD + "gates:\n  - {axes: [0], kind: slice, name: s}\n  - {axes: [0], share: s}\n",
    "share_with_kind": HEAD + "gates:\n  - [0]\n  - {axes: [0], share: g0, kind: dense, init: zeros}\n",
    "across": HEAD
    + "gates:\n  - {axes: [0], across: layer}\n  - {axes: [0], kind: slice, across: all}\n"
    + "  - {axes: [0], share: g0, across: all}\n  - {axes: [0], across: null}\n",
    "across_with_a_preset": PRESET + "preset: lora\nin_features: 64\nacross: all\n",
    "names": HEAD + "gates:\n  - {axes: [0], name: forward}\n  - {axes: [0], name: class}\n  - {axes: [0], name: 1a}\n",
    "name_twice": HEAD + "gates:\n  - {axes: [0], name: a}\n  - {axes: [1], name: a}\n",
    "default_name_taken": HEAD + "gates:\n  - {axes: [0], name: g1}\n  - [1]\n",
    "layout_text": "version: 1\nname: example\nlayout: 16x8-4\ngates: [each]\n",
    "layout_zero": "version: 1\nname: example\nlayout: 0x10\ngates: [each]\n",
    "layout_huge": "version: 1\nname: example\nlayout: [1000000000, 8]\ngates: [each]\n",
    "layout_product": "version: 1\nname: example\nlayout: 4096x4096x2\ngates: [each]\n",
    "template": "version: 1\nname: example\nlayout: {auto: 4}\ngates: [all_pairs]\n",
    "width": HEAD + "gates:\n  - {axes: [0], to: [16777216]}\n",
    "too_many_gates": HEAD + "gates:\n  - {pattern: ring, repeat: 1000000000}\n",
    "pattern_without_gates": "version: 1\nname: example\nlayout: 16\ngates: [all_pairs]\n",
    "pattern_on_removed_axis": NAMED + "gates:\n  - {axes: [row], to: {a: 2}}\n  - each\n",
    "pattern_to": HEAD + "gates:\n  - {pattern: chain, axes: [0, 1], to: {2: 4, 0: 8, 7: 3}}\n",
    "pattern_as_key": HEAD + "gates:\n  - all_pairs: {repeat: 2}\n",
    "output": HEAD + "gates: [each]\noutput: [3, 2, 1]\n",
    "output_twice": HEAD + "gates: [each]\noutput: [3, 2, 1, 0, 3]\n",
    "duplicate_key": HEAD + "gates: [each]\nname: other\n",
    "surprises": HEAD + "gates:\n  - {axes: [010, 1:20], name: on}\nplan: {tokens: 2_048}\n",
    "tag": HEAD + "gates: !!python/object/apply:os.system ['true']\n",
    "two_documents": HEAD + "gates: [each]\n---\na: 1\n",
    "merge_key": HEAD + "gates:\n  - &a {axes: [0]}\n  - {<<: *a, name: b}\n",
    "std": HEAD + "init: {scheme: normal, std: 0}\ngates:\n  - {axes: [0], init: {scheme: zeros, std: 1.0}}\n",
    "null_value": HEAD + "gates:\n  - {axes: [0], to: null, per: }\n",
    "terminal_escape": HEAD + 'gates:\n  - {axes: [0], name: "\\e[31mred\\u202e"}\n',
    "preset_unknown": PRESET + "preset: lorra\nrank: 8\nplan: {tokens: 0}\n",
    "preset_no_name": PRESET + "preset: [lora]\nin_features: x\n",
    "preset_other_option": PRESET + "preset: krona\nrank: 8\nlayout: 8x8\n",
    "preset_with_gates": PRESET + "preset: lora\nlayout: 8x8\ngates: [each]\noutput: [0]\nrak: 4\n",
    "preset_without_options": PRESET + "preset: butterfly\nlayout: 8x8\nin_features: 64\n",
    "preset_options": "preset: tt\nrank: 0\nlayout: {a: 4, b: 16}\nin_features: 0\n",
    "preset_template": PRESET + "preset: lora\nrank: 8\n",
    "preset_too_large": PRESET + "preset: tt\nlayout: 64x64x64\nrank: 100000\n",
    "preset_default_too_large": PRESET + "preset: btt\nin_features: 16777216\n",
    "preset_rank_too_large": PRESET + "preset: quantum_peft\nrank: 65\nin_features: 768\nout_features: 64\n",
    "preset_default_rank_too_large": PRESET + "preset: quantum_peft\nin_features: 7\n",
    "preset_one_axis": PRESET + "preset: quanta\nlayout: 16\n",
    "ry_axis_size": HEAD + "gates:\n  - {axes: [3], to: [2]}\n  - {axes: [3], kind: ry}\n  - {axes: [1], kind: ry}\n",
    "ry_two_axes": BITS + "gates:\n  - {axes: [a, b], kind: ry}\n",
    "ry_with_to": BITS + "gates:\n  - {axes: [a], kind: ry, to: [2]}\n  - {axes: [a], kind: ry, layers: 2}\n",
    "ry_in_pairs": BITS + "gates:\n  - {pattern: chain, kind: ry}\n  - {pattern: each, kind: cz}\n",
    "ry_pattern_axis_size": HEAD + "gates:\n  - {pattern: each, kind: ry, axes: [1, 2]}\n",
    "cz_one_axis": BITS + "gates:\n  - {axes: [a], kind: cz}\n  - {axes: [a, b, c], kind: cz, name: all}\n",
    "cz_has_no_parameter": BITS
    + "gates:\n  - {axes: [a, b], kind: cz, init: zeros, frozen: true, per: rest, to: [2, 2]}\n"
    + "  - {pattern: chain, kind: cz, init: zeros, to: {a: 4}}\n",
    "cz_shared": BITS + "gates:\n  - {axes: [a, b], kind: cz}\n  - {axes: [a, b], share: g0}\n",
    "pauli_layers": HEAD
    + "gates:\n  - {axes: [0], kind: pauli, layers: -1}\n  - {axes: [1], kind: pauli, layers: 100000}\n"
    + "  - {axes: [2], kind: pauli, layers: many}\n",
    "rank_parameters": HEAD
    + "gates:\n  - {axes: [0], kind: orthogonal, rank_parameters: 17}\n"
    + "  - {axes: [0], to: [5], kind: orthogonal, rank_parameters: 6}\n"
    + "  - {axes: [1, 2], kind: pauli, rank_parameters: 7}\n"
    + "  - {axes: [1, 2], kind: pauli, rank_parameters: 0}\n"
    + "  - {pattern: chain, kind: pauli, rank_parameters: 6}\n",
    "wide_and_tall": HEAD
    + "gates:\n  - {axes: [0, 1], to: [4, 16], kind: orthogonal}\n"
    + "  - {axes: [2, 3], to: {3: 8, z: 3, 2: 2}, kind: pauli, name: both}\n"
    + "  - {pattern: chain, axes: [0, 1], kind: pauli, to: {0: 2, 1: 32}}\n",
    "rotation_init": HEAD
    + "init: orthogonal\ngates:\n  - {axes: [0], kind: orthogonal, init: kaiming_uniform}\n"
    + "  - {pattern: each, kind: pauli, init: {scheme: identity}}\n",
    "givens_pairs": HEAD
    + "gates:\n  - {axes: [3], kind: givens, pairs: []}\n  - {axes: [3], kind: givens, pairs: 3}\n"
    + "  - {axes: [3], kind: givens, pairs: [[0, 1], [2], 3, [1, 1], [-1, 2], [0, yes], [0, 1.5]]}\n",
    "givens_out_of_range": HEAD
    + "gates:\n  - {axes: [3], kind: givens, pairs: [[0, 1], [2, 4]]}\n"
    + "  - {axes: [3], kind: givens, to: [2]}\n  - {pattern: each, kind: givens, pairs: [[0, 7]]}\n"
    + "  - {axes: [3], kind: givens, init: orthogonal}\n  - {axes: [3], kind: orthogonal, pairs: [[0, 1]]}\n",
    "givens_too_large": "version: 1\nname: example\nlayout: 65536x2\ngates: [{axes: [0], kind: givens}]\n",
    "unknown_map": HEAD + "gates:\n  - {axes: [0], kind: orthogonal, map: caley}\n",
    "map_no_name": HEAD + "gates:\n  - {pattern: each, kind: orthogonal, map: 1}\n",
    "keys_of_other_kinds": HEAD
    + "gates:\n  - {axes: [0], layers: 2, map: exp, rank_parameters: 3}\n"
    + "  - {axes: [0], kind: pauli, rank: 2, map: exp}\n"
    + "  - {axes: [0], kind: orthogonal, layers: 2, value: [[1]]}\n"
    + "  - {axes: [0], kind: pauli, rank_parameter: 2}\n"
    + "  - {pattern: each, layers: 2, rank_parameters: 1}\n",
    "two_design_keys": BITS
    + "gates:\n  - {pattern: two_design, kind: ry, to: {a: 4}, per: rest, rank: 2, rank_parameters: 1, name: u}\n"
    + "  - {pattern: two_design, layer: 2}\n  - two_designs\n",
    "two_design_layers": BITS
    + "init: orthogonal\ngates:\n  - {pattern: two_design, layers: -2}\n"
    + "  - {pattern: two_design, init: orthogonal}\n  - {axes: [a], share: g9}\n",
    "two_design_too_many_gates": BITS
    + "gates:\n  - {pattern: two_design, layers: 1024, repeat: 1000000}\n"
    + "  - {pattern: two_design, layers: 1024}\n  - {pattern: two_design, layers: 1024}\n",
    "orthogonal_too_large": "version: 1\nname: example\nlayout: 4096x256\ngates:\n"
    + "  - {axes: [0, 1], kind: orthogonal}\n  - {axes: [0, 1], kind: pauli}\n",
    "long_line": HEAD + "gates: [" + "[0], " * 60 + "[9], " + "[1], " * 60 + "]\n",
}


def errors_of(text: str, tmp_path: Path) -> SpecError:
    (tmp_path / "circuit.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(SpecError) as caught:
            load_spec("circuit.yaml")
    return caught.value


@pytest.mark.parametrize("name", WRONG)
def test_error_text(name: str, tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    golden(f"errors/{name}.txt", f"{errors_of(WRONG[name], tmp_path)}\n")


TEN = """\
version: 1
name: ten mistakes
layout: 16x8x8x4
in_features: 0
gates:
  - {pattern: al_pairs}
  - [0, 4]
  - {axes: [1, 2], to: [8, 8, 8]}
  - {axes: [3], kind: lowrank, name: low}
  - {axes: [3], name: later}
  - {axes: [3], frozn: true}
  - {axes: [3], name: low}
  - {axes: [0, 3], per: [3]}
plan: {optimizer: best}
"""


def test_ten_planted_mistakes_give_ten_diagnostics(tmp_path: Path) -> None:
    found = errors_of(TEN, tmp_path).diagnostics
    assert [diagnostic.span.line for diagnostic in found if diagnostic.span] == [2, 4, 6, 7, 8, 9, 11, 12, 13, 14]


TEN_BETWEEN_GATES = """\
version: 1
name: between
layout: {a: 16, b: 8, c: 8, d: 4}
gates:
  - {axes: [a, b], to: {ab: 128}, name: join}
  - [a, c]
  - {axes: [ab, e]}
  - {axes: [c, d], to: [8]}
  - {axes: [ab], per: [ab]}
  - {axes: [ab], share: jion}
  - {axes: [ab], to: [64], share: join}
  - {axes: [ab], name: join}
  - {axes: [ab], kind: constant, value: [[1]]}
  - {axes: [ab], to: {d: 128}}
  - {pattern: chain}
"""


def test_mistakes_between_gates_are_all_found(tmp_path: Path) -> None:
    found = errors_of(TEN_BETWEEN_GATES, tmp_path).diagnostics
    assert [diagnostic.span.line for diagnostic in found if diagnostic.span] == list(range(6, 16))


@pytest.mark.parametrize(
    "first",
    [
        "{axes: [0, 1], to: {z: 4}, kindd: dense}",
        "{axes: [0, 9], to: {z: 4, 0: 2}}",
        "{axes: [0, 1], to: {z: 0x4}}",
        "{axes: [0, 1], tto: {z: 4}}",
        "{axes: [0, 1], to: {z: 4}, kind: lowrank}",
        "{axes: [0, 1], to: {z: 4}, share: zz}",
        "{axes: [0, 1], to: {z: 4}, kind: cz}",
        "{axes: [0, 1], to: {z: 4}, kind: orthogonal, map: log}",
        "{axes: [0, 1], to: {z: 4}, kind: pauli, rank_parameters: 3}",
        "{axes: [0, 1], to: {z: 4, 0: 1, 1: 3}, kind: pauli}",
    ],
)
def test_no_follow_up_errors(first: str, tmp_path: Path) -> None:
    text = f"version: 1\nname: a\nlayout: 2x2x2\ngates:\n  - {first}\n  - [z]\n  - {{axes: [z, 2], to: {{y: 5}}}}\n"
    found = errors_of(text, tmp_path).diagnostics
    assert [diagnostic.span.line for diagnostic in found if diagnostic.span] == [5], str(found)


def test_no_follow_up_errors_of_a_wrong_layout(tmp_path: Path) -> None:
    text = "version: 1\nname: a\nlayout: {a: 0}\noutput: [b]\n"
    text += "gates:\n  - all_pairs\n  - [a, b]\n  - {axes: [b], share: g7}\n"
    assert len(errors_of(text, tmp_path).diagnostics) == 1


def test_many_errors_are_cut_off(tmp_path: Path) -> None:
    text = HEAD + "gates:\n" + "  - [7]\n" * 300
    error = errors_of(text, tmp_path)
    assert str(error).endswith("and 200 more")
    error = errors_of(HEAD + "gates:\n" + "  - [7]\n" * 3000, tmp_path)
    assert str(error).endswith("and 2900 more")


def test_dict_errors_have_paths() -> None:
    gate = {"axes": [4, "x y"], "to": {0: True}, "": 1}
    with pytest.raises(SpecError) as caught:
        load_spec({"version": 1, "name": "a", "layout": [4, 4], "gates": [[0], [0], gate]})
    lines = [diagnostic.render().splitlines()[0] for diagnostic in caught.value.diagnostics]
    assert "<dict>: gates[2].axes[1]: an axis is a position or a name, got the text 'x y'" in lines
    assert "<dict>: gates[2].to[0]: the new size of an axis must be an integer, got true" in lines
    assert len(lines) == 3
    assert caught.value.diagnostics[0].to_dict()["line"] is None


@pytest.mark.parametrize("name", [{}, ["each"]], ids=["mapping", "list"])
def test_a_pattern_whose_name_is_no_text_may_have_an_unknown_key_too(name: object) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec({"version": 1, "name": "c", "layout": [2, 2], "gates": [{"pattern": name, "layer": 1}]})
    assert [one.path for one in caught.value.diagnostics] == ["gates[0].pattern", "gates[0].layer"]


def test_same_names_between_two_gates_of_a_later_pattern(tmp_path: Path) -> None:
    found = errors_of(HEAD + "gates:\n  - {axes: [0], name: g2}\n  - each\n", tmp_path).diagnostics
    assert [diagnostic.path for diagnostic in found] == ["gates[0].name"]
