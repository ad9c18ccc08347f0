"""The largest circuit that a file may describe.

The limits are far above any adapter in use; they stand so that a typing error or a hostile file is answered at once
instead of with an exhausted memory.
"""

FILE_BYTES = 1 << 20
"""A circuit of 10,000 gates written out takes about this much."""

NESTING = 32
"""A valid file is four levels deep."""

NODES = 150_000
"""Values in a file, aliases counted as often as they are used: bounds alias bombs."""

AXES = 256
GATES = 10_000
"""After patterns are expanded."""

WIDTH = 1 << 24
"""Numbers in the state of one token, before and after any gate: 64 MiB in float32."""

GATE_NUMBERS = 1 << 31
"""Numbers stored for one gate: 8 GiB in float32."""

PARAMETERS = 1 << 34
"""Numbers stored for all gates: 64 GiB in float32."""

LAYERS = 1024
"""Entangling layers of a two-design circuit: one or two are usual, and ten mix all there is to mix."""

TOKENS = 1 << 31
"""The batch planned for."""

REPEAT = 1 << 31
"""Only keeps arithmetic on `repeat` small: the number of gates is limited long before."""
