"""The kinds of gates, one file each: what a kind accepts, stores and costs, what it can reach, and how it looks."""

from quanta_compiler.kinds.constant import Constant
from quanta_compiler.kinds.cz import Cz
from quanta_compiler.kinds.dense import Dense
from quanta_compiler.kinds.diagonal import Diagonal
from quanta_compiler.kinds.givens import Givens
from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.lowrank import Lowrank
from quanta_compiler.kinds.orthogonal import Orthogonal
from quanta_compiler.kinds.pauli import Pauli
from quanta_compiler.kinds.ry import Ry
from quanta_compiler.kinds.slice import Slice

DEFAULT: Kind = Dense()
"""What a gate is whose kind is not said."""
SCALING: Kind = Diagonal()
"""What only scales."""
KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Dense, Lowrank, Diagonal, Orthogonal, Givens, Pauli, Ry, Cz, Slice, Constant)
}
