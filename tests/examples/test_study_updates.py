"""What the study looks at in the updates that its runs leave."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(EXAMPLES / "study"), str(EXAMPLES / "finetune")]

import analysis  # noqa: E402
import fits  # noqa: E402
from families import FAMILIES  # noqa: E402
from journal import append_record  # noqa: E402
from methods import build_model, trained_parameters  # noqa: E402
from protocol import Run  # noqa: E402
from study_records import record  # noqa: E402
from tiny_encoder import save_bert  # noqa: E402
from updates import save_update  # noqa: E402

from quanta_compiler.adapters.saved import read_adapter  # noqa: E402


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("method", ["full", "lora-r8"])
def test_the_saved_update_is_the_difference_of_the_weights(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    before = build_model(FAMILIES["full"].method(), str(tiny_bert), seed=0)
    model = build_model(FAMILIES[method].method(), str(tiny_bert), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    save_update(model, str(tiny_bert), tmp_path / "update")
    encoder: Any = model.encoder
    after = dict((encoder if method == "full" else encoder.merge_and_unload()).named_parameters())
    saved = read_adapter(tmp_path / "update").updates
    assert len(saved) == 6
    for name, update in saved.items():
        weight = f"{name}.weight"
        difference = after[weight].double() - dict(before.encoder.named_parameters())[weight]
        torch.testing.assert_close(update.matrix(torch.device("cpu")), difference, atol=1e-6, rtol=1e-5)


def test_the_rank_correlation_is_spearmans() -> None:
    # Without ties 1 - 6 sum(d^2) / (n (n^2 - 1)); the ranks are 1, 3, 2, 4 and 2, 4, 1, 3.
    assert analysis.rank_correlation([0.1, 0.5, 0.2, 9.0], [2, 4, 1, 3]) == pytest.approx(1 - 6 * 4 / (4 * 15))
    # With a tie its ranks are 1.5 each: the correlation of 1.5, 1.5, 3 with 1, 2, 3.
    assert analysis.rank_correlation([1, 1, 5], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert analysis.rank_correlation([1, 1], [2, 3]) == 0


def test_updates_are_ranked_compared_and_fitted(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an encoder of one layer; the update of full fine-tuning has a rank of two."""
    layers = ("encoder.layer.0.attention.self.query",)
    monkeypatch.setattr(fits, "LAYERS", layers)
    krona = fits.documents()["krona"]
    monkeypatch.setattr(fits, "documents", lambda: {"krona": krona})
    for method in (analysis.LARGER, analysis.SMALLER, analysis.FULL):
        model = build_model(FAMILIES[method].method(), str(tiny_bert), seed=1)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in trained_parameters(model).values():
                if parameter.ndim == 2:
                    rows, columns = parameter.shape
                    parameter.add_(torch.randn(rows, 2) @ torch.randn(2, columns), alpha=0.01)
        save_update(model, str(tiny_bert), tmp_path / f"words-{method}-seed1")
    append_record(tmp_path / "words.jsonl", record(Run("final", "krona", 3e-3, 1), 0.75))
    arguments = ["--updates", str(tmp_path), "--results", str(tmp_path)]
    lines = analysis.report(analysis.parse_arguments(arguments)).splitlines()
    assert lines[2].startswith("| `words` | `lora-r16` | ")
    assert float(lines[4].split("|")[3].split()[0]) < 2.01, "the effective rank of full fine-tuning"
    assert lines[6].startswith("| task | r=16 and | phi(1, 1) |")
    assert lines[13] == "| `words` | numbers a layer | relative error | test accuracy |"
    assert "| `lora-r2` | 1,536 | 0.000 |  |" in lines[15:17]
    assert "| `krona` | 2,368 | " in lines[17]
    assert "| 75.00 |" in lines[17]


def test_what_can_be_fitted_is_written_out_with_no_gate_of_zeros() -> None:
    found = fits.documents()
    assert {"quanta-4-orthogonal", "tt", "krona", "monarch", "loretta", "btt", "butterfly"} <= found.keys()
    assert not {"quanta-4", "vera", "lotr", "oft", "quantum-peft", "quanta-input"} & found.keys()
    assert all("init" not in gate for document in found.values() for gate in document["gates"])
