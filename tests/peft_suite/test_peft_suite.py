"""PEFT's own tests pass with our method; see run.py for the same as a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from run import require_packages, run_suite, summary

LEAST_PASSED = 3000
"""Tests that must really have run: fewer mean that PEFT's tests no longer find our rows."""


@pytest.mark.slow
def test_tests_of_the_installed_peft_pass_with_circuits(tmp_path: Path) -> None:
    require_packages()
    outcome = run_suite(tmp_path)
    report = summary(outcome)
    assert outcome.failures == [], report
    assert outcome.returncode == 0, report
    assert outcome.unmatched == [], report
    assert outcome.passed >= LEAST_PASSED, report
