"""Checks of the values that may be written in several ways: layouts, axes, `to`, `per`, `init`.

Each check takes the data as read and returns what the models hold, or refuses it with every problem in it.
"""

import re
from typing import Any

from quanta_compiler.diagnostics import DataPath, clip, offered, quote
from quanta_compiler.kinds import limits
from quanta_compiler.kinds.checks import (
    Problem,
    describe,
    integer_problem,
    is_integer,
    number_problem,
    refuse,
    refuse_if,
)
from quanta_compiler.kinds.initialisers import ANGLES, ENTRIES, INITIALISERS
from quanta_compiler.kinds.plugins import PACKAGE
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.spec.circuit_spec import Init
from quanta_compiler.spec.names import CIRCUIT_NAME, IDENTIFIER, POSITION, axis_name_problem, gate_name_problem
from quanta_compiler.spec.patterns import PATTERNS

AxisRef = int | str
"""A position in the input layout, or an axis's name."""

(WITH_STD,) = (name for name, row in INITIALISERS.items() if row.std is not None)
"""The scheme that takes a standard deviation."""
VERSION = 1
_LAYOUT_TEXT = re.compile(r"[0-9]+(?:([x-])[0-9]+(?:\1[0-9]+)*)?\Z")


def check_version(value: Any) -> int:
    """Check the version of the file format."""
    if is_integer(value) and value > VERSION:
        message = f"the file has version {describe(value)} and needs a newer quanta-compiler; this one reads {VERSION}"
        refuse([((), message, "upgrade quanta-compiler")])
    if not is_integer(value) or value != VERSION:
        refuse([((), f"`version` must be {VERSION}, got {describe(value)}", f"write `version: {VERSION}`")])
    return VERSION


def check_circuit_name(value: Any) -> str:
    """Check the name of a circuit."""
    if not isinstance(value, str):
        refuse([((), f"`name` must be text, got {describe(value)}", "quote it" if is_integer(value) else None)])
    if not CIRCUIT_NAME.match(value):
        hint = "ASCII letters, digits, - _ and . ; starts with a letter; at most 64 characters"
        refuse([((), f"{quote(value)} cannot be the name of a circuit", hint)])
    return value


def check_width(key: str, value: Any) -> int:
    """Check the length of the input vector, or of the output vector."""
    problem = integer_problem(value, f"`{key}`", 1, limits.WIDTH)
    refuse_if([((), problem, None)] if problem else [])
    return int(value)


def check_gate_name(value: Any) -> str:
    """Check the name of a gate."""
    if not isinstance(value, str):
        refuse([((), f"`name` must be an identifier, got {describe(value)}", None)])
    problem = gate_name_problem(value)
    if problem is not None:
        refuse([((), f"a gate cannot be called {quote(value)}: the name {problem}", "choose another name")])
    return value


def check_pattern_name(value: Any) -> str:
    """Check the name of a pattern."""
    words = ", ".join(PATTERNS)
    if not isinstance(value, str):
        refuse([((), f"`pattern` must be a name, got {describe(value)}", f"the patterns are {words}")])
    if value not in PATTERNS:
        refuse([((), f"unknown pattern {quote(value)}", offered(value, PATTERNS, f"the patterns are {words}"))])
    return value


def _ref_problem(value: Any) -> str | None:
    if is_integer(value) or (isinstance(value, str) and (POSITION.match(value) or IDENTIFIER.match(value))):
        return None
    return f"an axis is a position or a name, got {describe(value)}"


def _check_refs(value: list[Any], what: str) -> tuple[AxisRef, ...]:
    if not value:
        refuse([((), f"{what} is empty", "name at least one axis")])
    if len(value) > limits.AXES:
        refuse([((), f"{what} has {len(value)} entries; the limit is {limits.AXES}", None)])
    found = ((index, _ref_problem(ref)) for index, ref in enumerate(value))
    refuse_if([((index,), problem, None) for index, problem in found if problem is not None])
    return tuple(value)


def check_axes(value: Any) -> tuple[AxisRef, ...]:
    """Check a list of axes."""
    if not isinstance(value, list | tuple):
        hint = f"write `[{clip(str(value), 20)}]`" if _ref_problem(value) is None else "such as `[0, 1]`"
        refuse([((), f"expected a list of axes, got {describe(value)}", hint)])
    return _check_refs(list(value), "the list of axes")


def check_output(value: Any) -> tuple[AxisRef, ...]:
    """Check the order of the final axes; it is empty where the gates leave no axis."""
    return () if value == [] else check_axes(value)


def check_per(value: Any) -> tuple[AxisRef, ...] | str:
    """Check `per`: a list of axes, or `rest`."""
    if value == "rest":
        return "rest"
    if not isinstance(value, list | tuple):
        hint = f"write `[{clip(str(value), 20)}]`" if _ref_problem(value) is None else None
        refuse([((), f"`per` is a list of axes or `rest`, got {describe(value)}", hint)])
    if "rest" in value:
        refuse([((), "`rest` stands alone: it is all other axes already", "write `per: rest`")])
    return () if not value else _check_refs(list(value), "`per`")


def check_pattern_per(value: Any) -> str:
    """Check `per` of a pattern, which can only be `rest`."""
    if value != "rest":
        hint = "write the gates out to choose their axes"
        refuse([((), f"`per` of a pattern can only be `rest`, got {describe(value)}", hint)])
    return "rest"


def check_to(value: Any) -> tuple[int, ...] | dict[AxisRef, int]:
    """Check `to` of a gate: a list of sizes, or a mapping from axes to sizes."""
    if isinstance(value, list | tuple):
        refuse_if(size_problems(list(value), "the new size of an axis"))
        return tuple(value)
    return check_to_mapping("`to` is a list of new sizes or a mapping from axes to sizes", value)


def check_to_mapping(expected: str, value: Any) -> dict[AxisRef, int]:
    """Check a mapping from axes to sizes."""
    if not isinstance(value, dict):
        refuse([((), f"{expected}, got {describe(value)}", "such as `{0: 2}`")])
    if len(value) > limits.AXES:
        refuse([((), f"`to` has {len(value)} entries; the limit is {limits.AXES}", None)])
    problems: list[Problem] = []
    for ref, size in value.items():
        problem = _ref_problem(ref) or integer_problem(size, "the new size of an axis", 1, limits.WIDTH)
        if problem is not None:
            problems.append(((ref,), problem, None))
    refuse_if(problems)
    return dict(value)


def check_init(value: Any) -> Init:
    """Check an initialiser: the name of a scheme, or `{scheme: normal, std: s}`."""
    if isinstance(value, str):
        _check_scheme(value, ())
        return Init(value, INITIALISERS[value].std)
    if not isinstance(value, dict):
        hint = "such as `kaiming_uniform` or `{scheme: normal, std: 0.02}`"
        refuse([((), f"`init` is the name of a scheme or a mapping, got {describe(value)}", hint)])
    problems: list[Problem] = []
    for key in value:
        if key not in ("scheme", "std"):
            problems.append(((key,), f"unknown key {quote(key)} in `init`", "the keys are `scheme` and `std`"))
    scheme = value.get("scheme")
    if scheme is None:
        refuse([*problems, ((), "`init` needs a `scheme`", "such as `{scheme: normal, std: 0.02}`")])
    if not problems:
        _check_scheme(scheme, ("scheme",))
    if "std" in value:
        wrong = number_problem(value["std"], "`std`")
        if wrong is None and not 0 < value["std"] <= 3e38:
            wrong = f"`std` must be positive and a float32, got {describe(value['std'])}"
        if wrong is None and scheme != WITH_STD:
            wrong = f"`std` goes with the scheme `{WITH_STD}` only, not with `{clip(str(scheme))}`"
        if wrong is not None:
            problems.append((("std",), wrong, None))
    refuse_if(problems)
    std = INITIALISERS[scheme].std
    return Init(scheme, None if std is None else float(value.get("std", std)))


def check_init_of(schemes: tuple[str, ...], value: Any) -> Init:
    """Check an initialiser of a kind that takes some schemes only."""
    init = check_init(value)
    if init.scheme not in schemes:
        message = f"angles cannot be drawn as `{init.scheme}`, which is a scheme for the entries of matrices"
        hint = f"the schemes for orthogonal gates are {' and '.join(schemes)}"
        if schemes != ANGLES:
            message, hint = f"such gates cannot be drawn as `{init.scheme}`", f"their schemes: {', '.join(schemes)}"
        refuse([(("scheme",) if isinstance(value, dict) else (), message, hint)])
    return init


def _check_scheme(scheme: Any, path: DataPath) -> None:
    if scheme in ENTRIES:
        return
    message = f"unknown initialiser {quote(scheme)}"
    if not isinstance(scheme, str):
        message = f"`scheme` must be a name, got {describe(scheme)}"
    refuse([(path, message, offered(scheme, ENTRIES, f"the schemes are {', '.join(ENTRIES)}"))])


def check_packages(value: Any) -> dict[str, str]:
    """Check which packages bring the kinds of a file: names of kinds, and packages with their versions."""
    hint = "such as `{householder: quanta-householder==0.1}`; `quanta expand` writes it"
    if not isinstance(value, dict):
        refuse([((), f"`packages` is a mapping from kinds to packages, got {describe(value)}", hint)])
    wrong = [kind for kind, package in value.items() if not isinstance(package, str) or not PACKAGE.match(package)]
    refuse_if([((kind,), f"expected a package with its version, got {describe(value[kind])}", hint) for kind in wrong])
    return dict(value)


def size_problems(values: list[Any], what: str) -> list[Problem]:
    """Say which of some sizes are none, and why."""
    found = ((index, integer_problem(value, what, 1, limits.WIDTH)) for index, value in enumerate(values))
    return [((index,), problem, None) for index, problem in found if problem is not None]


def check_layout(value: Any) -> Layout:
    """Check a layout in any notation."""
    if isinstance(value, str):
        return _layout_text(value)
    if is_integer(value):
        value = [value]
        problem = integer_problem(value[0], "the size of an axis", 1, limits.WIDTH)
        refuse_if([((), problem, None)] if problem else [])
    if isinstance(value, list | tuple):
        return _layout_list(list(value))
    if isinstance(value, dict):
        return _layout_mapping(value)
    hint = "write `16x8x8x4`, `[16, 8, 8, 4]`, `{a: 16, b: 8}` or `{auto: 4}`"
    refuse([((), f"`layout` must say the sizes of the axes, got {describe(value)}", hint)])


def check_preset_layout(value: Any) -> Layout:
    """Check the layout of a preset, whose axes have no names: the preset itself refers to them."""
    layout = check_layout(value)
    if layout.names is not None:
        hint = "write `16x8x8x4`, `[16, 8, 8, 4]` or `{auto: 4}`"
        refuse([((), "the axes of a preset's layout cannot be named", hint)])
    return layout


def _layout_text(text: str) -> Layout:
    if not _LAYOUT_TEXT.match(text):
        chosen = re.fullmatch(r"auto\s*[:=]\s*(\d+)", text)
        sizes = "write sizes with x or - between them, such as `16x8x8x4`"
        hint = f"write `{{auto: {chosen[1]}}}`, in braces" if chosen else sizes
        refuse([((), f"{quote(text)} is not a layout" if text else "`layout` is empty", hint)])
    words = re.split("[x-]", text)
    # Ten digits are past every limit already; longer ones need not be converted.
    return _layout_list([int(word) if len(word) <= 18 else 10**18 for word in words], whole=True)


def _layout_list(sizes: list[Any], whole: bool = False) -> Layout:
    if not sizes:
        refuse([((), "`layout` has no axes", "give it at least one, such as `[16, 8]`")])
    if len(sizes) > limits.AXES:
        refuse([((), f"`layout` has {len(sizes)} axes; the limit is {limits.AXES}", None)])
    problems = size_problems(sizes, "the size of an axis")
    if whole:
        problems = [((), f"{message} (axis {path[0]})", hint) for path, message, hint in problems]
    refuse_if(problems)
    return Layout(tuple(sizes))


def _layout_mapping(sizes: dict[Any, Any]) -> Layout:
    if "auto" in sizes:
        problem = integer_problem(sizes["auto"], "`auto` (the number of axes)", 1, limits.AXES)
        problems: list[Problem] = [
            ((key,), f"{quote(key)} does not go with `auto`", None) for key in sizes if key != "auto"
        ]
        refuse_if(problems + ([(("auto",), problem, None)] if problem else []))
        return Layout(auto=sizes["auto"])
    if not sizes:
        refuse([((), "`layout` has no axes", "give it at least one, such as `{a: 16}`")])
    if len(sizes) > limits.AXES:
        refuse([((), f"`layout` has {len(sizes)} axes; the limit is {limits.AXES}", None)])
    problems = []
    for name, size in sizes.items():
        wrong = axis_name_problem(name) if isinstance(name, str) else "is not an identifier"
        if wrong is not None:
            hint = "write the sizes as a list to name axes by position" if is_integer(name) else "choose another name"
            problems.append(((name,), f"an axis cannot be called {quote(name)}: the name {wrong}", hint))
        wrong = integer_problem(size, "the size of an axis", 1, limits.WIDTH)
        if wrong is not None:
            problems.append(((name,), wrong, None))
    refuse_if(problems)
    return Layout(tuple(sizes.values()), tuple(sizes))
