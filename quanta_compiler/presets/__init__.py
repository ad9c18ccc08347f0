"""Families of circuits, one file each, and the layouts that the compiler chooses; the table is in `table`."""

DEFAULT = "quanta"
"""The family that an adapter takes where nothing is said."""
EXAMPLES = ("lora:8", "krona:64-64")
"""Presets in short notation, for messages and help."""
REFERENCE = EXAMPLES[0]
"""What the costs of others are compared with."""
