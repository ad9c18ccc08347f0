"""Fine-tune a pretrained encoder on headlines: QuanTA beside LoRA, full fine-tuning and a frozen encoder.

    python examples/finetune/encoder.py

Weights and headlines come from the package index (see wheels.py). First the learning rate of each method is chosen on
validation headlines, then each method is trained with several seeds and tested once a run, then its time per step and
its memory are measured. Everything is written to the output folder, and what is there is not done again: started
anew after an interruption, the script goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from console import run_script
from headlines import load_headlines, split_headlines
from measure import measure_memory, measure_speed, peak_memory
from methods import METHODS, build_model, trained_parameters
from rows import Split, draw_rows
from tables import chosen_rate, describe_machine, write_tables
from training import Run, Settings, SettingsError, Trainer, checkpoint_path, evaluate, keep_settings, write_json
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from wheels import DEFAULT_CACHE, MINILM, unpack_folder

logger = logging.getLogger("encoder")

STAGES = ("search", "final", "speed", "memory", "table")
SEARCH_SEED = 0


class Comparison:
    """All runs of one output folder."""

    def __init__(self, settings: Settings, split: Split, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self.settings = settings
        self.split = split
        self.folder = folder
        self.tokenizer = tokenizer

    def search(self, methods: Sequence[str], rates: int | None = None) -> None:
        """Train each method with each learning rate of its grid (with the first `rates` of them)."""
        for method in methods:
            for rate in METHODS[method].rates[:rates]:
                self.result(Run("search", method, rate, SEARCH_SEED))

    def final(self, methods: Sequence[str], seeds: Sequence[int]) -> None:
        """Train each method with the learning rate chosen for it, once for every seed.

        Raises:
            SettingsError: a method has not been searched.

        """
        # Seed by seed, so that an interrupted comparison has something to say about every method.
        for seed in seeds:
            for method in (method for method in methods if METHODS[method].rates):
                rate = chosen_rate(method, self.finished())
                if rate is None:
                    raise SettingsError(f"no learning rate is chosen for {method!r}; run `--stage search` first")
                self.result(Run("final", method, rate, seed))

    def finished(self) -> list[dict[str, Any]]:
        """Return the results of all finished runs."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((self.folder / "runs").glob("*.json"))]

    def result(self, run: Run) -> dict[str, Any]:
        """Return the result of a run, training only if it is not finished.

        Raises:
            SettingsError: the run was finished with another definition of its method.

        """
        path = self.folder / "runs" / f"{run.name}.json"
        definition = fingerprint(run.method)
        if path.exists():
            result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if result["definition"] != definition:
                raise SettingsError(f"{path} was trained with another definition of {run.method!r}; use another --out")
            return result
        logger.info("%s", run.name)
        result = {**dataclasses.asdict(run), "definition": definition, **self._train(run)}
        write_json(path, result)
        checkpoint_path(self.folder, run).unlink(missing_ok=True)
        return result

    def _train(self, run: Run) -> dict[str, Any]:
        start = time.perf_counter()
        model = build_model(METHODS[run.method], self.settings.model, run.seed)
        trainer = Trainer(model, self.tokenizer, run, self.settings, self.folder)
        rows = self.settings.search_rows if run.stage == "search" else self.settings.final_rows
        trainer.train(draw_rows(self.split.train, rows, run.seed))
        part = "validation" if run.stage == "search" else "test"
        scores = evaluate(model, self.tokenizer, getattr(self.split, part), self.settings)
        logger.info("%s: %s accuracy %.4f, loss %.4f", run.name, part, scores["accuracy"], scores["loss"])
        return {
            "trained_parameters": sum(parameter.numel() for parameter in trained_parameters(model).values()),
            "steps": len(trainer.losses),
            part: scores,
            "seconds_since_start_or_resumption": round(time.perf_counter() - start, 1),
        }


def fingerprint(method: str) -> str:
    """Return a hash of what a method trains: its adapter's configuration, circuits included."""
    definition = METHODS[method]
    adapter = definition.adapter(0).to_dict() if definition.adapter else {}
    # What is unset is left out: a later version of PEFT may know more options that are unset.
    chosen = {key: value for key, value in adapter.items() if value and key != "peft_version"}
    text = json.dumps([definition.trains_encoder, chosen], sort_keys=True, default=sorted)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Fine-tune an encoder on headlines with circuits, LoRA and others.")
    parser.add_argument("--out", type=Path, help="output folder (runs/encoder; runs/encoder-quick with --quick)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=f"folder of wheels ({DEFAULT_CACHE})")
    parser.add_argument("--model", help="a hub model or a local folder instead of the packaged MiniLM")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"some of {','.join(METHODS)}")
    parser.add_argument("--seeds", default="1,2,3", help="seeds of the final runs (1,2,3)")
    parser.add_argument("--quick", action="store_true", help="a few headlines, one rate and one seed: does it run?")
    parser.add_argument("--memory-of", choices=tuple(METHODS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.methods = options.methods.split(",")
    if unknown := [method for method in options.methods if method not in METHODS]:
        parser.error(f"unknown method {unknown[0]!r}; there are {', '.join(METHODS)}")
    options.seeds = [1] if options.quick else [int(seed) for seed in options.seeds.split(",")]
    options.out = options.out or Path("runs") / ("encoder-quick" if options.quick else "encoder")
    return options


def run_stages(options: argparse.Namespace) -> str:
    """Do what the options ask for and return the table."""
    model = options.model or str(unpack_folder(MINILM, options.cache))
    settings = Settings(options.model or f"{MINILM.distribution}=={MINILM.version}")
    if options.quick:
        settings = dataclasses.replace(
            settings, search_rows=64, final_rows=96, test_rows=64, validation_rows=32, checkpoint_steps=2
        )
    tokenizer = AutoTokenizer.from_pretrained(model)
    split = split_headlines(load_headlines(options.cache), settings.test_rows, settings.validation_rows)
    placed = dataclasses.replace(settings, model=model)
    if options.memory_of:
        return str(peak_memory(METHODS[options.memory_of], tokenizer, split.train, placed))
    keep_settings(options.out, settings)
    write_json(options.out / "machine.json", describe_machine())
    comparison = Comparison(placed, split, options.out, tokenizer)
    stages = STAGES if options.stage == "all" else (options.stage,)
    if "search" in stages:
        comparison.search(options.methods, 1 if options.quick else None)
    if "final" in stages:
        comparison.final(options.methods, options.seeds)
    if "speed" in stages:
        rounds = 3 if options.quick else 20
        methods = {name: METHODS[name] for name in options.methods}
        seconds = measure_speed(methods, tokenizer, split.train, placed, rounds=rounds)
        write_json(options.out / "speed.json", seconds)
    if "memory" in stages:
        command = ["--cache", str(options.cache), *(["--model", options.model] if options.model else [])]
        write_json(options.out / "memory.json", measure_memory(options.methods, command))
    return write_tables(options.out, options.methods)


def main() -> None:
    """Run the stages, showing progress on stderr, and print the table."""
    options = parse_arguments()
    run_script(lambda: run_stages(options), options.out)


if __name__ == "__main__":
    main()
