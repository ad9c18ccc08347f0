"""`dense`: a matrix that is trained entry by entry."""

from dataclasses import dataclass

from quanta_compiler.kinds.kind import Form, Kind, Merging


@dataclass(frozen=True, slots=True)
class Dense(Kind):
    """A stored matrix."""

    name = "dense"
    meaning = "A gate whose matrix is trained entry by entry."
    form = Form.MATRIX
    box = ""
    merging = Merging.BLOCKS
