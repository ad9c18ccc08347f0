"""Options and fixtures of all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installed_kinds import householder, install  # noqa: F401 - fixtures
from interpreted_kernels import interpreter  # noqa: F401 - a fixture

from quanta_compiler.driver import CompiledCircuit, compile_circuit

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`, which writes the golden files instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the diff after")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file at a path below tests/golden."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(path: str, text: str) -> None:
        file = GOLDEN / path
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
            return
        assert file.exists(), f"{file} is missing; run pytest with --update-golden"
        assert text == file.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session")
def mixed() -> CompiledCircuit:
    """Return a compiled circuit with something of everything."""
    from mixed_circuit import MIXED

    return compile_circuit(MIXED)


@pytest.fixture
def name_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return what sets `QUANTA_ENGINE` and lets engines be found anew, as in a process that has not computed yet."""
    from quanta_compiler.kernels.engine import engine_for

    def name(engine: str) -> None:
        monkeypatch.setenv("QUANTA_ENGINE", engine)
        engine_for.cache_clear()

    yield name
    engine_for.cache_clear()


@pytest.fixture(scope="session")
def medium() -> CompiledCircuit:
    """Return a circuit whose operator is built in slices without being asked: 512 x 512, 16 slices."""
    circuit = compile_circuit({"version": 1, "name": "test", "layout": "8x8x8", "gates": ["all_pairs"]})
    assert circuit.report.operator.slices == 16
    return circuit
