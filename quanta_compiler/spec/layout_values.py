"""Checks of layouts, in every notation: `16x8x8x4`, `[16, 8, 8, 4]`, `{a: 16, b: 8}`, `{auto: 4}`."""

import re
from typing import Any

from quanta_compiler.diagnostics import quote
from quanta_compiler.kinds import limits
from quanta_compiler.kinds.checks import Problem, describe, integer_problem, is_integer, refuse, refuse_if
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.spec.names import axis_name_problem

_LAYOUT_TEXT = re.compile(r"[0-9]+(?:([x-])[0-9]+(?:\1[0-9]+)*)?\Z")


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
        hint = "write sizes with x or - between them, such as `16x8x8x4`"
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
