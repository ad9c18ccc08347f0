"""The kinds of gates, one file each, and how what they store may be drawn."""
