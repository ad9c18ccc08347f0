"""How a kind of gate looks in pictures: on paper, on a dark screen, and in a terminal."""

import enum
from dataclasses import dataclass

SQUARE = "┌─┐│└┘┤├┴┬"
"""Corners, sides, the sides where a wire enters and leaves, and the edges where a link to another part goes off."""
ROUNDED = "╭─╮│╰╯┤├┴┬"
DOTTED = "┌┄┐┆└┘┤├┴┬"
DOUBLE = "╔═╗║╚╝╢╟╧╤"


class Outline(enum.Enum):
    """The shape of a box."""

    BOX = "nearly square corners"
    SOFT = "round corners"
    PILL = "half circles at the ends"
    WAIST = "narrow in the middle"
    TWICE = "a second line within"
    TAPERED = "hatched, lower where there are fewer indices"
    DOTS = "no box: a dot on every axis"


@dataclass(frozen=True, slots=True)
class Look:
    """Colours (light fill and stroke, dark fill and stroke), the outline, and what the legend says."""

    fill: str
    stroke: str
    dark_fill: str
    dark_stroke: str
    outline: Outline = Outline.BOX
    frame: str = SQUARE
    """Of a box in a terminal."""
    legend: str | None = None
    """What a picture has to explain of it."""


PLAIN = Look("#dfe9f7", "#3f6ea6", "#1f3350", "#7fa9de")
TURNS = Look("#fbe7dc", "#b5562a", "#452618", "#eb9f78")
"""The colours of the gates of a two-design circuit."""
HATCHED = Look("#f7efdd", "#93702c", "#3a2f18", "#d3b06a", Outline.TAPERED, DOTTED)
