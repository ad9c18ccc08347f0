"""Emitted source as live modules."""
