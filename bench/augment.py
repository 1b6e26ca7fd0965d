"""What augmentation is worth with few labels: accuracy with and without, a linear SVM and a small decoder.

    python -m bench.augment --data FOLDER --work WORK --output bench/results/augment_cpu/titles.json [--quick true]

In: a folder with train.txt, dev.txt and class.txt (a title, a tab, a number a line). From train.txt each seed draws
`labels` titles, the same number of each class; the rest of it is used without its labels, for word vectors and to
pretrain the decoder. dev.txt only measures, all of it, once at the end of each training. Out: JSON on standard output
and in `--output`: for each classifier and setting the accuracy of each seed, the mean gain over none and its 95 %
interval (Student's t over the pairs of a seed), and `bars`. What was made in `--work` is not made again.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import ROOT, environment
from bench.titles import linear_svm
from megadec.cli import run_verb
from megadec.common.config import from_dict, parse, to_dict
from megadec.common.errors import ConfigError, TrainingError, check_choice, check_range
from megadec.common.files import whole_folder, write_json
from megadec.corpus.words.vectors import WordVectorOptions, train_vectors
from megadec.engine.health.preemption import Interrupt
from megadec.engine.loop import train
from megadec.engine.metrics.options import FILE_NAME as METRICS_FILE
from megadec.engine.ranks import Ranks
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.zero.engine import end_process_group, start_process_group
from megadec.finetune.augment import AugmentOptions
from megadec.finetune.examples import LabelledOptions, LabelledText, read_labelled, with_copies
from megadec.finetune.task import FineTuneRun, open_finetune
from megadec.pretrain.command import open_pretraining

NONE, BAR_SETTING, BAR_GAIN = "none", "all", 0.005
SETTINGS: dict[str, dict[str, float]] = {
    NONE: {},
    "deletion x4": {"copies": 4, "deletion": 0.2},
    "swap x4": {"copies": 4, "swap": 0.4},
    "mixing x4": {"copies": 4, "mixing": 1.0},
    "synonyms x4": {"copies": 4, "synonyms": 0.6, "neighbors": 30},
    "synonyms x16": {"copies": 16, "synonyms": 0.6, "neighbors": 30},
    BAR_SETTING: {"copies": 16, "synonyms": 0.6, "neighbors": 30, "mixing": 0.5, "swap": 0.1, "deletion": 0.1},
}
SVM, DECODER = "svm", "decoder"
TOKENIZER = ROOT / "tokenizer" / "zh_8k" / "tokenizer.model"
DEEPSPEED = ROOT / "ds_configs" / "zero0.json"
# Every n-gram counts: of 450 titles few stand in two.
SVM_LEAST_TEXTS = 1
SHAPE = {
    "hidden_size": 128, "layers": 3, "heads": 2, "kv_heads": 1, "head_size": 64, "intermediate_size": 384,
    "max_position_embeddings": 512, "rope_theta": 10000.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AugmentBench:
    """What is measured.

    Attributes:
        data: the folder of titles.
        work: folder for what is made on the way.
        output: a JSON file for the result.
        labels: titles that are learned from with their labels.
        seeds: each draws its own titles.
        classifiers: svm, decoder or both.
        settings: names of SETTINGS; empty: all.
        model: a pretrained decoder; left out: one is pretrained on the titles.
        pretrain_steps: of 4,096 tokens each.
        finetune_steps: of the decoder without copies; with more it only learns the few titles by heart.
        augmented_steps: of the decoder with copies.
        learning_rate: of the decoder's fine-tuning.
        quick: two seeds, two settings for the decoder, a tenth of the pretraining.
    """

    data: Path
    work: Path
    output: Path | None = None
    labels: int = 450
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    classifiers: tuple[str, ...] = (SVM, DECODER)
    settings: tuple[str, ...] = ()
    model: Path | None = None
    pretrain_steps: int = 600
    finetune_steps: int = 60
    augmented_steps: int = 120
    learning_rate: float = 0.001
    quick: bool = False

    def __post_init__(self) -> None:
        check_range(self, "", "labels", "pretrain_steps", "finetune_steps", "augmented_steps", least=1)
        for name in self.classifiers:
            check_choice("classifiers", name, (SVM, DECODER))
        for name in self.settings:
            check_choice("settings", name, SETTINGS)
        if len(self.seeds) < 2:
            raise ConfigError("seeds: an interval needs at least two")


def main(argv: Sequence[str]) -> None:
    """Measure what the command line asks for."""
    options = parse(AugmentBench, argv, description="What augmentation is worth with few labels.")
    seeds = options.seeds[:2] if options.quick else options.seeds
    names = [NONE, *(name for name in options.settings or SETTINGS if name != NONE)]
    began = time.monotonic()
    prepare(options)
    rows: list[dict[str, Any]] = []
    if SVM in options.classifiers:
        rows += table(SVM, names, seeds, lambda name, seed: svm_accuracy(options, name, seed))
    if DECODER in options.classifiers:
        ranks = start_process_group()
        model = options.model or pretrain(options, ranks)
        wanted = [NONE, BAR_SETTING] if options.quick else names
        rows += table(DECODER, wanted, seeds, lambda name, seed: decoder_accuracy(options, model, ranks, name, seed))
        end_process_group(ranks)
    result = {
        "environment": environment(),
        "options": to_dict(options),
        "settings": {name: SETTINGS[name] for name in names},
        "seconds": round(time.monotonic() - began),
        "rows": rows,
        "bars": bars(rows),
    }
    if options.output:
        write_json(options.output, result)
    print(json.dumps(result, ensure_ascii=False, indent=1))


def bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Whether the setting that was fixed beforehand gains half a point, by classifier."""
    return {
        f"{row['classifier']}_gains_half_a_point": {
            "gain": row["gain"],
            "bar": BAR_GAIN,
            "holds": row["gain"] >= BAR_GAIN,
        }
        for row in rows
        if row["setting"] == BAR_SETTING
    }


def table(classifier: str, names: Sequence[str], seeds: Sequence[int], measure: Any) -> list[dict[str, Any]]:
    """A row for each setting, `none` first: accuracies in the order of the seeds, and the gain over none."""
    rows: list[dict[str, Any]] = []
    for name in names:
        accuracies = [measure(name, seed) for seed in seeds]
        plain = rows[0]["accuracies"] if rows else accuracies
        gains = [with_it - without for with_it, without in zip(accuracies, plain, strict=True)]
        low, high = interval(gains)
        rows.append(
            {
                "classifier": classifier,
                "setting": name,
                "accuracies": accuracies,
                "accuracy": round(statistics.mean(accuracies), 5),
                "gain": round(statistics.mean(gains), 5),
                "gain_95": [round(low, 5), round(high, 5)],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean, by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values) - half, statistics.mean(values) + half


def prepare(options: AugmentBench) -> None:
    """Documents and shards of the titles without their labels' use, and word vectors of them."""
    documents, shards = options.work / "documents", options.work / "shards"
    if not shards.exists():
        arguments = ["--source", "thucnews", "--input", options.data / "train.txt", "--filter.rules", "none"]
        arguments += ["--documents", documents, "--tokenizer", TOKENIZER, "--output", shards]
        run_verb(
            ["prepare", *map(str, arguments), "--exclude_texts", str(options.data / "dev.txt"), "--overwrite", "true"]
        )
    if not vectors_of(options).exists():
        train_vectors(
            WordVectorOptions(
                input=(documents / "thucnews.parquet",), output=vectors_of(options), min_count=3, epochs=10
            )
        )


def vectors_of(options: AugmentBench) -> Path:
    """Where the word vectors are."""
    return options.work / "vectors"


def draw(options: AugmentBench, seed: int) -> Path:
    """A folder with train.txt of `labels` titles, as many of each class, and class.txt."""
    folder = options.work / "labels" / f"{options.labels}_{seed}"
    if folder.exists():
        return folder
    classes = (options.data / "class.txt").read_text(encoding="utf-8")
    lines = (options.data / "train.txt").read_text(encoding="utf-8").splitlines()
    random.Random(seed).shuffle(lines)
    each = options.labels // len(classes.split())
    chosen: dict[str, list[str]] = {}
    for line in lines:
        some = chosen.setdefault(line.rpartition("\t")[2], [])
        if len(some) < each:
            some.append(line)
    with whole_folder(folder) as partial:
        text = "".join(f"{line}\n" for some in chosen.values() for line in some)
        (partial / "train.txt").write_text(text, encoding="utf-8")
        (partial / "class.txt").write_text(classes, encoding="utf-8")
    return folder


def augment_values(options: AugmentBench, name: str) -> dict[str, Any]:
    """A setting as `data.augment` of a run."""
    return {**SETTINGS[name], "vectors": str(vectors_of(options))} if SETTINGS[name] else {}


def svm_accuracy(options: AugmentBench, name: str, seed: int) -> float:
    """Of the SVM of bench/titles.py on the titles and their copies."""
    texts: list[LabelledText] = list(read_labelled(draw(options, seed) / "train.txt", LabelledOptions()))
    learned = with_copies(texts, from_dict(AugmentOptions, augment_values(options, name)), seed)
    held_out = list(read_labelled(options.data / "dev.txt", LabelledOptions()))
    labels = (options.data / "class.txt").read_text(encoding="utf-8").split()
    return float(linear_svm(learned, held_out, labels, SVM_LEAST_TEXTS)["accuracy"])


def pretrain(options: AugmentBench, ranks: Ranks) -> Path:
    """The run of the small decoder, on the titles as text; one that has ended is not trained again."""
    values = {
        "name": "pretrained",
        "output_folder": str(options.work / "runs"),
        "tokenizer": str(TOKENIZER),
        "model": {"shape": SHAPE},
        "data": {"train": {str(options.work / "shards"): 1.0}, "sequence_length": 128},
        "train": {
            "steps": max(1, options.pretrain_steps // (10 if options.quick else 1)),
            "global_batch_size": 32, "micro_batch_size": 32, "precision": "fp32",
        },
        "optimizer": {"learning_rate": 0.003, "weight_decay": 0.1},
        "schedule": {"kind": "cosine", "warmup_steps": 50},
        "checkpoint": {"interval_steps": 0, "keep_last": 1},
    }  # fmt: skip
    with Interrupt() as interrupt:
        train(open_pretraining(from_dict(PretrainRun, values), DEEPSPEED), interrupt, ranks)
    return options.work / "runs" / "pretrained"


def decoder_accuracy(options: AugmentBench, model: Path, ranks: Ranks, name: str, seed: int) -> float:
    """Of the pretrained decoder, fine-tuned on the titles and their copies, at its last step."""
    steps = options.augmented_steps if SETTINGS[name] else options.finetune_steps
    run = from_dict(
        FineTuneRun,
        {
            "name": f"{name.replace(' ', '_')}_{options.labels}_{seed}",
            "output_folder": str(options.work / "runs"),
            "seed": seed,
            "model": {"path": str(model), "dropout": 0.1},
            "data": {
                "train": str(draw(options, seed) / "train.txt"), "dev": str(options.data / "dev.txt"),
                "sequence_length": 128, "augment": augment_values(options, name),
            },
            "train": {
                "steps": steps, "global_batch_size": 8, "micro_batch_size": 8, "precision": "fp32",
                "dry_run": False,
            },
            "optimizer": {"learning_rate": options.learning_rate, "weight_decay": 0.1},
            "schedule": {"kind": "cosine", "warmup_steps": 10},
            "evaluate": {"interval_steps": steps, "micro_batch_size": 32},
            "checkpoint": {"interval_steps": 0, "keep_last": 1},
        },
    )  # fmt: skip
    with Interrupt() as interrupt:
        train(open_finetune(run, DEEPSPEED), interrupt, ranks)
    metrics = options.work / "runs" / run.name / METRICS_FILE
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if line["kind"] == "evaluate"][-1]
    if last["step"] != steps:
        raise TrainingError(f"{run.name} ended at step {last['step']} of {steps}; the same command goes on from there")
    return float(last["accuracy"])


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
