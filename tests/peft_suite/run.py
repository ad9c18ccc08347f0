"""Run PEFT's own test suite against our method: the tests of the installed version, unedited, with our rows.

    python tests/peft_suite/run.py                    # everything, with two processes
    python tests/peft_suite/run.py -k merge           # further arguments go to pytest
    python tests/peft_suite/run.py --peft-version 0.21.0

Needs, beside this package: accelerate, attrs, bitsandbytes, datasets, diffusers, parameterized, peft, pytest,
pytest-xdist, scipy, torchao, transformers (all in the extra `dev`). The tests come from the sdist of PEFT, which pip
downloads once into a cache folder. No hub is needed: models are tiny, random and made on the spot.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from suite_sources import PACKAGE, default_cache, fetch_sdist, unpack_tests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REQUIRED = {
    "accelerate": "accelerate",
    "attrs": "attr",
    "bitsandbytes": "bitsandbytes",
    "datasets": "datasets",
    "diffusers": "diffusers",
    "parameterized": "parameterized",
    "peft": "peft",
    "pytest": "pytest",
    "pytest-xdist": "xdist",
    "scipy": "scipy",
    "torchao": "torchao",
    "transformers": "transformers",
}
"""Distribution -> the module that it brings."""

PYTEST_INI = """[pytest]
junit_family = xunit2
markers =
    single_gpu_tests
    multi_gpu_tests
    regression
    bitsandbytes
"""


@dataclass
class Counts:
    """What became of the tests of one module, and how long they took together, in seconds."""

    passed: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass
class Outcome:
    """The result of one run."""

    returncode: int
    modules: dict[str, Counts] = field(default_factory=dict)
    skips: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    other_methods: int = 0
    excluded: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    """Entries of suite_tables.py for which the tests have nothing."""

    @property
    def passed(self) -> int:
        """Return how many tests passed."""
        return sum(counts.passed for counts in self.modules.values())


def main(arguments: list[str] | None = None) -> int:
    """Run the suite as the command line says; return pytest's exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--peft-version", help="whose tests to run; default: the installed version")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for PEFT's sdist (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder for tests and models, kept; default: a temporary one")
    parser.add_argument("--processes", type=int, default=2, help="parallel processes, 0 for none (%(default)s)")
    options, pytest_arguments = parser.parse_known_args(arguments)
    require_packages()
    with tempfile.TemporaryDirectory(prefix="peft-suite-") as temporary:
        work = options.work or Path(temporary)
        outcome = run_suite(work, options.cache, options.peft_version, options.processes, pytest_arguments)
    print(summary(outcome))
    return outcome.returncode


def require_packages() -> None:
    """Say which packages are missing, all at once.

    Raises:
        SystemExit: one or more are.

    """
    missing = [name for name, module in REQUIRED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise SystemExit(f"PEFT's tests need: {', '.join(missing)}\nhint: python -m pip install {' '.join(missing)}")


def run_suite(
    work: Path,
    cache: Path | None = None,
    version: str | None = None,
    processes: int = 2,
    pytest_arguments: list[str] | None = None,
) -> Outcome:
    """Fetch and unpack PEFT's tests in `work`, make the models, run pytest in a process of its own, count."""
    from suite_models import build_hub
    from suite_tables import MODULES

    installed = importlib.metadata.version("peft")
    archive = fetch_sdist(version or installed, cache or default_cache())
    work.mkdir(parents=True, exist_ok=True)
    package = unpack_tests(archive, work)
    build_hub(work / "hub")
    (work / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    modules = {name: package / f"{name}.py" for name in MODULES}
    present = [str(path) for path in modules.values() if path.exists()]
    command = [sys.executable, "-m", "pytest", "-c", str(work / "pytest.ini"), "--rootdir", str(work)]
    command += ["-p", "suite_plugin", "-n", str(processes), f"--junitxml={work / 'junit.xml'}", "-q"]
    done = subprocess.run(
        [*command, *present, *(pytest_arguments or [])], cwd=work, env=_environment(work), check=False
    )
    outcome = Outcome(done.returncode, unmatched=[name for name, path in modules.items() if not path.exists()])
    _count(outcome, work)
    return outcome


def _environment(work: Path) -> dict[str, str]:
    """Return the environment of the tests: one thread, no accelerator, no hub but the folder of tiny models."""
    paths = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(work),
        "HF_HUB_CACHE": str(work / "hub"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PEFT_SUITE_RECORD": str(work / "record.json"),
    }


def _count(outcome: Outcome, work: Path) -> None:
    """Read what ran from pytest's XML report, and what was left out from the plugin's record."""
    report, record = work / "junit.xml", work / "record.json"
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else []:
        name = case.get("classname", "").removeprefix(f"{PACKAGE}.").partition(".")[0] or "collection"
        counts = outcome.modules.setdefault(name, Counts())
        counts.seconds += float(case.get("time", "0"))
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts.failed += 1
            outcome.failures.append(f"{case.get('classname')}::{case.get('name')}")
        elif skipped is not None:
            counts.skipped += 1
            outcome.skips[skipped.get("message", "").partition("(task_type=")[0][:110]] += 1
        else:
            counts.passed += 1
    if record.exists():
        content = json.loads(record.read_text(encoding="utf-8"))
        outcome.other_methods, outcome.excluded = content["other_methods"], content["excluded"]
        outcome.unmatched += content["unmatched"]


def summary(outcome: Outcome) -> str:
    """Return the counts by module, why tests were skipped by PEFT, and what was left out and why."""
    lines = [f"{'module':34}{'passed':>8}{'skipped':>8}{'failed':>8}{'seconds':>9}"]
    rows = sorted(outcome.modules.items())
    total = Counts(*(sum(getattr(counts, name) for _, counts in rows) for name in ("passed", "skipped", "failed")))
    total.seconds = sum(counts.seconds for _, counts in rows)
    for name, counts in [*rows, ("all", total)]:
        lines.append(f"{name:34}{counts.passed:8}{counts.skipped:8}{counts.failed:8}{counts.seconds:9.1f}")
    lines += ["", "skipped by PEFT's own conditions:"]
    lines += [f"{count:6}  {reason}" for reason, count in outcome.skips.most_common()]
    lines += ["", f"not run, as they test other methods alone: {outcome.other_methods}"]
    lines.append(f"not run, for the reasons in suite_tables.py: {len(outcome.excluded)}")
    by_reason = Counter(outcome.excluded.values())
    lines += [f"{count:6}  {reason}" for reason, count in by_reason.most_common()]
    if outcome.unmatched:
        lines += ["", "entries of suite_tables.py that this version of PEFT has nothing for:"]
        lines += [f"        {entry}" for entry in outcome.unmatched]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
