"""How a circuit can be computed, by name. No torch here: what compares and predicts names backends too."""

RUNNING = ("torch", "fused")
"""The emitted forward pass, and the gate table in one pass by an engine (kernels/engines/)."""
BACKENDS = ("auto", *RUNNING)
"""`auto` takes what is expected to be faster."""
DEVICES = ("cpu", "cuda")
"""Whose times are measured and predicted."""


class EngineError(ValueError):
    """The engine that `QUANTA_ENGINE` names cannot be used; the message says why, and what to do."""


def check_backend(backend: str) -> None:
    """Raise ValueError for a backend that does not exist."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
