"""One line of a comparison, and what its figures are called and mean."""

from dataclasses import dataclass

ADAMW_BYTES = 8
"""AdamW keeps two moments of 4 bytes for every number that trains (Loshchilov and Hutter, 2019, algorithm 2)."""
MISFIT = "over half of it is padding or truncation at these widths"
"""A part of a note; such a row is listed after the others, since its figures are no match for theirs."""


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one layout or method, for one layer or summed over a model's; None where there is no such figure.

    Bytes are of 4-byte numbers; a multiply-add is 2 FLOPs.
    """

    name: str
    kind: str
    """`circuit`, `dense`, or `method` for what is no circuit."""
    source: str
    """The file, or the baseline as it was asked for."""
    in_features: int | None
    out_features: int | None
    """Those of the layer; None for a whole model."""
    layers: int | None
    """How many layers the figures are summed over; None for a method of whole blocks."""
    trainable: int
    percent: float
    forward_flops_per_token: float
    step_flops_per_token: float
    saved_bytes_per_token: float
    optimizer_bytes: int
    operator_flops: int | None
    operator_peak_bytes: int | None = None
    breakeven_tokens: int | None = None
    rank_lower: int | None = None
    rank_upper: int | None = None
    connected: bool | None = None
    gates_to_connect: int | None = None
    backend: str | None = None
    forward_seconds: float | None = None
    step_seconds: float | None = None
    numerical_rank: int | None = None
    note: str = ""
    family: str = ""
    """The preset, or the method; of a circuit whose gates are written out `circuit`."""

    @property
    def is_misfit(self) -> bool:
        """Say whether the note says that the circuit is made for other widths."""
        return MISFIT in self.note


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of `Row`: its heading, its unit, one sentence on it, and which way is better."""

    key: str
    title: str
    unit: str
    meaning: str
    better: str | None = None


COLUMNS: tuple[Column, ...] = (
    Column("name", "name", "", "The circuit's name, or the baseline."),
    Column("kind", "kind", "", "A circuit, the dense layer itself, or a method that is no circuit."),
    Column("family", "family", "", "The preset or the method; `circuit` where the gates are written out."),
    Column("source", "source", "", "The file, or the baseline as it was asked for."),
    Column("in_features", "in", "features", "The width of the layer's input."),
    Column("out_features", "out", "features", "The width of the layer's output."),
    Column("layers", "layers", "", "How many layers the figures are summed over."),
    Column("trainable", "trainable", "numbers", "The numbers that train.", "lower"),
    Column("percent", "percent", "%", "The numbers that train, as a share of what the table's title says.", "lower"),
    Column("forward_flops_per_token", "forward", "FLOPs/token", "One forward pass of the update alone.", "lower"),
    Column("step_flops_per_token", "step", "FLOPs/token", "Forward and backward of the update alone.", "lower"),
    Column("saved_bytes_per_token", "saved", "bytes/token", "What is kept for backward, the input included.", "lower"),
    Column("optimizer_bytes", "AdamW", "bytes", "What AdamW keeps: two numbers for each that trains.", "lower"),
    Column("operator_flops", "operator", "FLOPs", "Building the matrix of the update, as merging does.", "lower"),
    Column("operator_peak_bytes", "operator peak", "bytes", "The memory that this takes at once.", "lower"),
    Column("breakeven_tokens", "break-even", "tokens", "From here on the matrix is as cheap to build as to apply."),
    Column("rank_lower", "rank from", "", "No matrices of full rank give the update a smaller rank.", "higher"),
    Column("rank_upper", "rank to", "", "The update's rank is at most this.", "higher"),
    Column("numerical_rank", "random rank", "", "The rank of a random instance, by its singular values.", "higher"),
    Column("connected", "connected", "", "Whether every output can depend on every input."),
    Column("gates_to_connect", "after gates", "gates", "How many gates that takes.", "lower"),
    Column("backend", "backend", "", "What runs the circuit in the predicted time, the FLOPs and the saved bytes."),
    Column("forward_seconds", "forward time", "s", "Predicted for one batch.", "lower"),
    Column("step_seconds", "step time", "s", "Forward and backward of the update, predicted for one batch.", "lower"),
    Column("note", "note", "", "What the figures leave out."),
)
"""Every figure, in the order of a table."""
SORTABLE = tuple(column.key for column in COLUMNS if column.key != "note")
