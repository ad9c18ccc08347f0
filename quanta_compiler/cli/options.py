"""Options that several commands have, and the checks of what is given for one."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from quanta_compiler.diagnostics import offered
from quanta_compiler.runtime.backends import DEVICES
from quanta_compiler.text.counts import count_of


def count(least: int = 1, most: int = 2**63 - 1) -> Callable[[str | int], int]:
    """Return what reads a count such as 50000, 50k or 1.5M, from `least` to `most`."""

    def parse(text: str | int) -> int:
        try:
            number = count_of(str(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if number < least:
            raise typer.BadParameter(f"{number:,} is too few: at least {least:,}")
        if number > most:
            raise typer.BadParameter(f"{number:,} is too many: at most {most:,}")
        return number

    return parse


def completed(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what a shell completes a word by; in a list with commas the last one."""

    def complete(incomplete: str) -> list[str]:
        before, comma, _ = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in known]

    return complete


def families(incomplete: str) -> list[str]:
    """Return the names of the families of circuits, for a shell to complete."""
    from quanta_compiler.presets.table import PRESETS

    return [*PRESETS]


def width(least: int = 1) -> Callable[[str | int], int]:
    """Return what reads a layer's width: in digits, since with a unit 3k would be 3,000 where 3,072 was meant."""
    in_range = count(least)

    def parse(text: str | int) -> int:
        if re.fullmatch(r"\s*\d+\s*", str(text)) is None:
            raise typer.BadParameter(f"{str(text)!r} is no width: write its digits, such as 3072")
        return in_range(text)

    return parse


File = Annotated[str, typer.Argument(metavar="FILE", help="The circuit file; `-` is standard input.")]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        metavar="COUNT",
        parser=count(1, 2**31),
        help="The batch to plan for, whatever the file says.",
    ),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES", parser=count(), help="Stop rather than take more memory; by default half of what is free."
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        autocompletion=completed(("all-linear",)),
        help="Which layers: names with commas between them, a regular expression, or `all-linear`; by default those "
        "that PEFT has for the model.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        autocompletion=completed((*DEVICES, "a100", "h100")),
        help="Whose times are predicted: cpu, cuda where it is calibrated, a100 and h100 by their data sheets.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; problems too, as a list of diagnostics.")]


def wrong_option(option: str, message: str) -> typer.BadParameter:
    """Return the error to raise for what is given for an option."""
    return typer.BadParameter(message, param_hint=f"'{option}'")


def one_of(noun: str, known: Iterable[str]) -> Callable[[str | None], str | None]:
    """Return the check that a word is one of those known."""

    def check(name: str | None) -> str | None:
        if name is not None and name not in known:
            hint = offered(name, known, f"choose one of {', '.join(known)}", mark="'")
            raise typer.BadParameter(f"{name!r} is no {noun}: {hint}")
        return name

    return check


def some_of(noun: str, known: Iterable[str]) -> Callable[[str | None], str | None]:
    """Return the check that words with commas between them are all known."""

    def check(text: str | None) -> str | None:
        for name in () if text is None else split_names(text):
            if name not in known:
                hint = offered(name, known, f"choose some of {', '.join(known)}", mark="'")
                raise typer.BadParameter(f"{name!r} is no {noun}: {hint}")
        return text

    return check


def split_names(text: str) -> tuple[str, ...]:
    """Return words with commas between them, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def picture_option(endings: Iterable[str]) -> Any:
    """Return the option for a picture, whose name ends in one of the formats that can be drawn."""
    text = f"Draw a picture: {', '.join(endings)}."
    return typer.Option("--output", "-o", metavar="FILE", callback=picture_name(endings), help=text)


def picture_name(endings: Iterable[str]) -> Callable[[Path | None], Path | None]:
    """Return the check that a picture's name ends in one of the formats that can be drawn."""

    def check(path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in endings:
            message = f"{str(path)!r} should end in one of {', '.join(endings)}"
            raise typer.BadParameter(message, param_hint="'--output' / '-o'")
        return path

    return check


def regex(text: str) -> re.Pattern[str]:
    """Return a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise typer.BadParameter(f"{text!r} is no regular expression: {error}") from None


def range_of(text: str, most: int, option: str) -> tuple[int, int]:
    """Return the ends of a range of small numbers: `3-5`, or `3`."""
    found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", text.strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= most:
        remedy = f"write a number or two, such as 3-5, from 1 to {most}"
        raise wrong_option(option, f"{text!r} is no range: {remedy}")
    return first, last


def numbers_of(text: str, option: str) -> tuple[int, ...]:
    """Return small numbers with commas between them, each once, in order."""
    numbers = text.split(",")
    if not all(re.fullmatch(r"\s*[1-9]\d{0,5}\s*", number) for number in numbers):
        remedy = "write some with commas between them, such as 1,2"
        raise wrong_option(option, f"{text!r} is no list of numbers: {remedy}")
    return tuple(sorted(set(map(int, numbers))))
