"""Presets in short notation, as the command line and comparisons take them: `lora:8`."""

import re
from collections.abc import Iterable
from typing import Any

from quanta_compiler.diagnostics import Problems, offered
from quanta_compiler.presets.family import Family
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec.document import Document, read_document
from quanta_compiler.spec.loader import DictSource


def preset_document(text: str) -> dict[str, Any]:
    """Return the circuit file that a preset in short notation stands for, its options written out.

    The notation is `NAME`, `NAME:VALUE` for the preset's main option, or `NAME:OPTION=VALUE,OPTION=VALUE`: `lora:8`,
    `krona:64-64`, `tt:rank=4,layout=16-16-16`, `quanta:auto=3`. Widths are left to `load_spec`.

    Raises:
        ValueError: there is no such preset, it has no such option, or the value is wrong.

    """
    name, colon, rest = text.partition(":")
    family = known_family(name)
    options = family.options()
    given: dict[str, Any] = {}
    for piece in rest.split(",") if colon else ():
        option, value = _option_of(family, piece)
        if option in given:
            raise ValueError(f"`{option}` is given twice in {text!r}")
        given[option] = value
    title = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:64].rstrip("-")
    document = {"version": 1, "name": title, "preset": name, **given}
    problems = Problems(DictSource())
    read = read_document(document, problems)
    errors = problems.errors()
    if errors:
        raise ValueError(f"{text!r}: {errors[0].message}" + (f" ({errors[0].hint})" if errors[0].hint else ""))
    assert not isinstance(read, Document | None)
    for option in options:
        default = getattr(read, option)
        if default is None:
            continue
        document.setdefault(option, {"auto": default.auto} if isinstance(default, Layout) else default)
    return document


def known_family(name: str) -> type[Family]:
    """Return the family of a name; ValueError where there is none."""
    if name in PRESETS:
        return PRESETS[name]
    check_colon(name, PRESETS)
    hint = offered(name, PRESETS, f"there is {', '.join(PRESETS)}", mark="'")
    raise ValueError(f"unknown preset {name!r}: {hint}")


def check_colon(text: str, names: Iterable[str]) -> None:
    """Raise ValueError where one of the names is given its value by another sign than a colon: `lora-8`."""
    found = re.fullmatch(r"([a-z_]+)[-=_ ]?(\d.*)", text)
    if found is not None and found[1] in names:
        meant = f"{found[1]}:{found[2]}"
        raise ValueError(f"unknown preset {text!r}: did you mean {meant!r}?")


def _option_of(family: type[Family], piece: str) -> tuple[str, Any]:
    options = family.options()
    option, equals, value = piece.partition("=")
    if not equals:
        if family.main is None:
            raise ValueError(f"preset {family.name!r} has no options, got {piece!r}")
        option, value = family.main, piece
    option, value = option.strip(), value.strip()
    if option == "auto" and "layout" in options:
        return "layout", {"auto": int(value) if value.isdigit() and len(value) < 10 else value}
    if option not in options:
        if option == "r" and "rank" in options:
            meant = f"{family.name}:{value}" if family.main == "rank" else f"{family.name}:rank={value}"
            raise ValueError(f"preset {family.name!r} has no option 'r': did you mean {meant!r}?")
        known = ", ".join(options) or "none"
        raise ValueError(f"preset {family.name!r} has no option {option!r}: its options are {known}")
    if option != "layout" and re.fullmatch("-?[0-9]{1,18}", value):
        return option, int(value)
    return option, value
