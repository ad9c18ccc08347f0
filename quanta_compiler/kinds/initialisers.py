"""How what a gate stores may be drawn."""

from __future__ import annotations

ENTRIES = ("kaiming_uniform", "xavier_uniform", "normal", "orthogonal", "identity", "zeros")
"""Schemes for entries of matrices."""
ANGLES = ("zeros", "normal")
"""Schemes for angles, and for what else is no entry: at zero a matrix is the identity."""
