"""The circuit file that `quanta new` prints: complete, commented, and valid as it stands."""

import math
import re
from collections.abc import Iterable, Mapping

from quanta_compiler.cli.options import wrong_option
from quanta_compiler.diagnostics import Diagnostic, SpecError
from quanta_compiler.kinds import limits
from quanta_compiler.presets.layouts import auto_layout
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.render import flow_text
from quanta_compiler.spec.short_notation import preset_document

_LONGEST_LAYOUT = 2000
_MANY_AXES = 16
"""From here on `all_pairs` is a long list of gates, and neighbours are paired instead."""
_MANY_GATES = 20
"""This many default gates leave a five-digit fraction of the input."""
_EXAMPLE_WIDTH = 4096
"""The width that a preset's file begins with where none is given."""
_HEADING = """\
# A circuit: `quanta check FILE` validates it, `quanta draw FILE` shows it, `quanta report FILE` says what it
# costs, and `quanta compile FILE` writes it as a PyTorch module. To complete and check it while typing, save
# `quanta schema` as circuit.schema.json beside it and begin the file with the line
#   # yaml-language-server: $schema=circuit.schema.json
version: 1
name: {name}

"""
_PLAN = """\

# The batch to plan for, in tokens; it changes the cost, never the result.
# plan: {{tokens: 2048}}
"""
_CIRCUIT = f"""{_HEADING}\
# The input vector is reshaped, row-major, to a tensor with these axes, {{size}} numbers in all; they are
# called {{called}}. Names of your own: {{{{rows: 64, columns: 64}}}}.
layout: {{layout}}

# The widths of the layer: the vectors are padded with zeros or cut at their ends to fit the layout.
{{widths}}

# Gates are matrices applied to some of the axes, from top to bottom.
gates:
  - {{gates}}
  # - {{{{axes: [{{last}}], kind: diagonal}}}}  # a number for each index of an axis
  # - {{{{axes: [{{first}}], kind: orthogonal}}}}  # a matrix that stays orthogonal in training
{{pairs}}
# How gates are drawn: the default, kaiming_uniform, shrinks the output by 0.58 a gate; orthogonal does not.
{{comment}}init: orthogonal
{_PLAN}"""
_PAIRS = """\
  # - [{first}, {last}]  # a dense matrix on two axes
  # - {{axes: [{first}, {last}], kind: lowrank, rank: 4}}  # the same as a product B A
  # - {{pattern: chain, repeat: 2}}  # others: each, ring, brick, all_pairs
"""
_PRESET = f"""{_HEADING}\
# {{family.meaning}},
#   {{family.operator}}
# for n in_features and m out_features{{factors}}. The trained parameters are
#   {{family.parameters}}
# `quanta expand FILE` prints the layout and the gates that this stands for.
{{given}}

# The widths of the layer.{{example}} As an adapter leave both out: every layer then has its own.
{{widths}}

# How all gates are drawn; without it as the preset does, so that training can start.
# init: {{init}}
{_PLAN}"""

_PATTERN_REMARKS = {
    "all_pairs": "one for every pair of axes, as QuanTA has them",
    "brick": "neighbours in pairs, then the pairs between them",
    "[0]": "one dense matrix on axis 0",
}


def circuit_template(
    options: Mapping[str, int | str],
    name: str | None = None,
    in_features: int | None = None,
    out_features: int | None = None,
) -> str:
    """Return a commented circuit file with gates; raise typer.BadParameter where an option is wrong.

    A `layout` must be among the options, as a circuit file writes it, such as `16x8x8x4` or `{auto: 4}`.
    """
    for option in options:
        if option != "layout":
            raise wrong_option(_flag(option), "it is an option of presets: name one with --preset")
    if "layout" not in options and in_features is None:
        raise wrong_option("--layout", "give the axes or the width (--in), or name a family of circuits with --preset")
    layout = str(options.get("layout", "auto:4")).strip()
    automatic = re.fullmatch(r"auto:([1-9]|1\d|2[0-4])", layout)
    if automatic is not None:
        width = max(in_features or _EXAMPLE_WIDTH, out_features or 1)
        if width > limits.WIDTH:
            raise wrong_option("--in", f"a layer has at most {limits.WIDTH:,} features")
        # The layer's own, where the layout is a little wider.
        out_features = in_features if out_features is None else out_features
        layout = "x".join(map(str, auto_layout(width, int(automatic[1]))))
    _check_layout_text(layout)
    given = {"in_features": in_features, "out_features": out_features}
    bare = ["version: 1", f"name: {flow_text(name or 'circuit')}", f"layout: {layout}", *_width_lines(given), "gates:"]
    # Which gates suit depends on the number of axes, which is known once a first circuit is read.
    axes = len(_load([*bare, "  - [0]"]).layout)
    pattern = "[0]" if axes == 1 else "all_pairs" if axes < _MANY_AXES else "brick"
    spec = _load([*bare, f"  - {pattern}"])
    names = [axis.name for axis in spec.layout]
    shown = names if len(names) <= 8 else [*names[:3], "...", names[-1]]
    first, last = names[0], names[-1]
    number = f" ({len(spec.gates)} gates)" if len(spec.gates) > 1 else ""
    sizes = "-".join(str(axis.size) for axis in spec.layout)
    default = f"quanta-{sizes}" if len(sizes) < 50 else f"quanta-{len(names)}-axes"
    text = _CIRCUIT.format(
        name=flow_text(name or default),
        size=math.prod(axis.size for axis in spec.layout),
        called=("axis " if len(names) == 1 else "axes ") + ", ".join(shown),
        layout=layout,
        widths="\n".join(_width_lines(given, spec)),
        gates=(f"[{first}]" if pattern == "[0]" else pattern) + f"  # {_PATTERN_REMARKS[pattern]}{number}",
        first=first,
        last=last,
        pairs=_PAIRS.format(first=first, last=last) if first != last else "",
        comment="" if len(spec.gates) > _MANY_GATES else "# ",
    )
    _load([text])
    return text


def preset_template(
    preset: str,
    options: Mapping[str, int | str],
    name: str | None = None,
    in_features: int | None = None,
    out_features: int | None = None,
) -> str:
    """Return a commented circuit file that names a preset; raise typer.BadParameter where an option is wrong.

    The preset may be in short notation, such as `lora:8`; a layout among the options is as a circuit file writes it.
    The input's width is by default 4096, or the product of a layout that is written out.
    """
    try:
        document = preset_document(preset)
    except ValueError as error:
        raise wrong_option("--preset", str(error)) from None
    family = PRESETS[document["preset"]]
    keys = family.options()
    for option in options:
        if option not in keys:
            takes = ", ".join(map(_flag, keys)) or "no options"
            raise wrong_option(_flag(option), f"preset `{family.name}` takes {takes}")
    if "layout" in options:
        _check_layout_text(str(options["layout"]))
    title = flow_text(name or (family.name.replace("_", "-") if options else document["name"]))
    chosen = {**document, **options}
    values = {option: _shown(chosen[option]) for option in keys if option in chosen}
    is_example = in_features is None and "auto" in values.get("layout", "auto")
    widths = {"in_features": _EXAMPLE_WIDTH if is_example else in_features, "out_features": out_features}
    given = [f"preset: {family.name}", *(f"{key}: {value}  # {keys[key].meaning}" for key, value in values.items())]
    given += [f"# {option}: COUNT  # {key.meaning}" for option, key in keys.items() if option not in chosen]
    spec = _load(["version: 1", f"name: {title}", *given, *_width_lines(widths)])
    has_factors = re.search("[nm]_", family.operator + family.parameters) is not None
    text = _PRESET.format(
        name=title,
        family=family,
        factors=", their factors being n_k and m_k" if has_factors else "",
        given="\n".join(given),
        example=f" {_EXAMPLE_WIDTH} is an example." if is_example else "",
        widths="\n".join(_width_lines(widths, spec)),
        # Angles are drawn in two ways only, and zeros is what they begin at anyway.
        init="normal" if any(gate.matrix.stores_angles for gate in spec.gates) else "orthogonal",
    )
    _load([text])
    return text


def _load(lines: Iterable[str]) -> CircuitSpec:
    try:
        return load_spec("\n".join(lines) + "\n")
    except SpecError as error:
        problem = error.diagnostics[0]
        hint = f" ({problem.hint})" if problem.hint else ""
        raise wrong_option(_option(problem), f"{problem.message}{hint}") from None


def _option(problem: Diagnostic) -> str:
    """Return what on the command line a problem of the file comes from."""
    key = problem.path.split("[")[0].split(".")[0]
    if key == "name":
        return "NAME"
    return "--layout" if key in ("", "version", "gates") else _flag(key)


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _check_layout_text(layout: str) -> None:
    if not layout or len(layout) > _LONGEST_LAYOUT or not layout.isprintable():
        raise wrong_option("--layout", "write sizes with x between them, such as `16x8x8x4`")


def _width_lines(given: Mapping[str, int | None], spec: CircuitSpec | None = None) -> list[str]:
    """Return the widths that are given, and as comments the others, where `spec` says what they are."""
    lines = [f"{key}: {value}" for key, value in given.items() if value is not None]
    others = [key for key, value in given.items() if value is None] if spec is not None else []
    return [*lines, *(f"# {key}: {getattr(spec, key)}" for key in others)]


def _shown(value: object) -> str:
    """Write an option's value; a layout of the command line is a text of the file already."""
    return value.strip() if isinstance(value, str) else flow_text(value)
