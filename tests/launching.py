"""Programs that run in several processes, started by a launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TORCHRUN = "torch.distributed.run --standalone --nproc_per_node 2"
# Most of it is importing PEFT and transformers in each process; the training takes a second.
TIMEOUT_SECONDS = 240


def launch(launcher: str, program: Path, arguments: Sequence[str]) -> None:
    """Run a program with a launcher until all its processes have ended; none outlives a timeout.

    It can import what stands beside its own folder.
    """
    paths = [os.environ.get("PYTHONPATH", ""), str(program.parents[1]), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", *launcher.split(), str(program), *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    assert process.returncode == 0, output[-6000:]
