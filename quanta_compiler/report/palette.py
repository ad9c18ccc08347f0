"""The colours and the fonts of every page and picture, on light and on dark paper."""

FONTS = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"

LIGHT = {
    # What is behind: a page, its cards, code on them, what stands at once in a diagram, the empty part of a bar.
    **{"page": "#f5f6f9", "paper": "#ffffff", "code": "#f5f6f9", "band": "#f4f6f9", "track": "#e8ebf1"},
    # Texts.
    **{"ink": "#1c2430", "muted": "#586273", "accent": "#0b6bb5", "accent-ink": "#ffffff"},
    # Lines: grids and borders, their stronger ones, what has to be seen (controls, edges of a graph), wires.
    **{"line": "#e3e7ee", "line-strong": "#c3cad5", "outline": "#808b9c", "wire": "#4d5866"},
    # What an entry is, the Pareto front, a mistake.
    **{"circuit": "#0072b2", "method": "#bf5000", "dense": "#3c4654", "front": "#00775a", "error": "#c62f2f"},
    # Families, in the order in which they come.
    **{"family-0": "#0072b2", "family-1": "#bf5000", "family-2": "#00775a", "family-3": "#9c3f83"},
    **{"family-4": "#7a6000", "family-5": "#1d7fa6", "family-6": "#8a4b2a", "family-7": "#3c4654"},
}
DARK = {
    **{"page": "#0d1014", "paper": "#14181f", "code": "#0d1014", "band": "#1b212b", "track": "#232a34"},
    **{"ink": "#e8ebf0", "muted": "#98a2b1", "accent": "#6cb6f0", "accent-ink": "#0d1014"},
    **{"line": "#262d38", "line-strong": "#465163", "outline": "#768294", "wire": "#9aa5b4"},
    **{"circuit": "#56b4e9", "method": "#f0883e", "dense": "#c9d1dc", "front": "#3ec9a0", "error": "#f07070"},
    **{"family-0": "#56b4e9", "family-1": "#f0883e", "family-2": "#3ec9a0", "family-3": "#dd8cc6"},
    **{"family-4": "#e3c84b", "family-5": "#7fd3f0", "family-6": "#d9a07c", "family-7": "#c9d1dc"},
}
FAMILIES = tuple(colour for name, colour in LIGHT.items() if name.startswith("family-"))
ON_DARK = "@media screen and (prefers-color-scheme: dark)"
"""When the dark colours hold: paper is light."""


def variables(light: dict[str, str], dark: dict[str, str]) -> str:
    """Return rules of a style sheet by which `var(--NAME)` is the colour of that name."""
    on_light, on_dark = (" ".join(f"--{name}: {colour};" for name, colour in side.items()) for side in (light, dark))
    return f":root {{ {on_light} }}\n{ON_DARK} {{ :root {{ {on_dark} }} }}\n"
