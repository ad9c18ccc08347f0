"""Measurements that take no time: one thread, small limits, short samples. No test looks at how long anything takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from quanta_compiler.bench import limits, timing


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MATMUL_SIDE", 32)
        patch.setattr(timing, "SAMPLE_SECONDS", 1e-5)
        yield
    torch.set_num_threads(threads)
