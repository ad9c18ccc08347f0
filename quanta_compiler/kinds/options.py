"""Options as files write them: what a value may be, and what is said of it in the JSON Schema, in help and in hints."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quanta_compiler.kinds import limits
from quanta_compiler.text.words import plural


@dataclass(frozen=True, slots=True)
class Integer:
    """An option that is an integer within bounds."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Word:
    """An option that is one of some words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """An option with a check of its own, which returns the value or raises BadValueError, and its JSON Schema."""

    check: Callable[[Any], Any]
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """An option that is a layout without names: sizes, or how many to choose."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the file that is an option."""

    type: Integer | Word | Checked | Sizes
    meaning: str
    """One sentence."""
    hint: str | None = None
    """What helps where the value is out of range."""
    example: str | None = None
    """What helps where the key is missing."""
    words: Callable[[Any], str] | None = None
    """What is said of the value after the name of a gate's kind, with a blank in front: ` of rank 4`."""
    note: Callable[[Any], str] | None = None
    """What the box of a gate says of the value, behind the kind's own note."""
    legend: str | None = None
    """What a picture has to explain where a gate has a value."""


def option(key: Key, default: Any = dataclasses.MISSING) -> Any:
    """Return the field of an option in a record of options; one without a default must be in the file."""
    return dataclasses.field(default=default, metadata={"key": key})


def keys_of(record: Any) -> dict[str, Key]:
    """Return the options of a record, or of its class, in order."""
    return {field.name: field.metadata["key"] for field in dataclasses.fields(record)}


LAYERS = Key(
    Integer(0, limits.LAYERS),
    "The entangling layers of the two-design circuit, from 0.",
    hint="with 0 nothing is entangled; 1 or 2 are usual",
    words=lambda layers: f" of {plural(layers, 'layer')}",
)
"""What all that is made of such circuits takes."""
