"""Made-up lines of the study's results; examples/study must be importable."""

from __future__ import annotations

from typing import Any

from families import FAMILIES
from protocol import Run


def record(run: Run, accuracy: float, loss: float | None = 0.5, **more: Any) -> dict[str, Any]:
    """Return a made-up line of the results."""
    scores = {"accuracy": accuracy, "loss": loss}
    machine = dict.fromkeys(("processor", "threads", "torch", "transformers", "peft", "python"), "x")
    return {
        **{"task": "words", "stage": run.stage, "method": run.method, "rate": run.rate, "seed": run.seed},
        **{"definition": FAMILIES[run.method].definition, "parameters": 84_099, "rows": 3, "seconds": 30.0},
        **{"validation": scores, "test": scores, "cpu_seconds_per_step": 0.2, "peak_bytes": 2**30},
        **{"machine": machine, "ended": "2026-11-29T09:00:00+00:00"},
        **more,
    }
