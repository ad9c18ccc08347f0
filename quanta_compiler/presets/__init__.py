"""Families of circuits, one file each, and the layouts that the compiler chooses; the table is in `table`."""
