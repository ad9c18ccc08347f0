"""What the scripts do on a terminal: log and show progress on stderr, print the table, and end with a sentence."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm
from training import SettingsError
from wheels import DownloadError


def run_script(work: Callable[[], str], folder: Path) -> None:
    """Print the table that `work` returns; `folder` is where an interrupted script goes on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        with logging_redirect_tqdm():
            print(work())
    except (DownloadError, SettingsError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(f"\ninterrupted; the same command goes on with what is in {folder}") from None
