"""Options as files write them: what a value may be, and what is said of it in the JSON Schema, in help and in hints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from quanta_compiler.kinds import limits


@dataclass(frozen=True, slots=True)
class Integer:
    """An option that is an integer within bounds."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """An option that is a layout without names: sizes, or how many to choose."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the file that is an option."""

    type: Integer | Sizes
    meaning: str
    """One sentence."""
    hint: str | None = None
    """What helps where the value is out of range."""


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
)
"""What all that is made of such circuits takes."""
