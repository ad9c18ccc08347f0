"""`slice`: the identity, its first rows, or its first columns."""

from dataclasses import dataclass

from quanta_compiler.kinds.kind import Form, Kind
from quanta_compiler.kinds.looks import HATCHED


@dataclass(frozen=True, slots=True)
class Slice(Kind):
    """What pads, cuts or renames axes."""

    name = "slice"
    meaning = "A fixed gate: the identity, its first rows, or its first columns."
    form = Form.RESHAPE
    schemes = ()
    takes_per = False
    in_patterns = False
    any_size = False
    look = HATCHED

    def flops(self, rows: int, columns: int) -> int:
        """Return nothing."""
        return 0
