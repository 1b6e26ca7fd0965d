"""Titles that a word gives away, as THUCNews titles come."""

import random
from collections.abc import Callable
from pathlib import Path

from megadec.export.read.megadec import to_megadec
from tests.support.processes import write_run
from tests.support.sources import random_source

WORDS = {"体育": ("木匠", "船长"), "财经": ("收音机", "地图"), "科技": ("星星", "实验室")}
REST = ("清晨", "黄昏时分", "在河边", "去年冬天的码头", "大家都很高兴", "没有人知道原因", "天气慢慢变冷了", "又")


def titles(count: int, seed: int) -> list[tuple[str, int]]:
    """(title, number of its class): words of its class among others, of very different lengths."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        words = list(WORDS.values())[number % len(WORDS)]
        parts = [chance.choice(words), *chance.choices(REST, k=chance.choice((1, 2, 3, 5)))]
        chance.shuffle(parts)
        found.append(("".join(parts), number % len(WORDS)))
    return found


def write_titles(folder: Path, train: int = 60, dev: int = 18) -> Path:
    """train.txt, dev.txt and class.txt, as THUCNews titles come."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", train, 1), ("dev", dev, 2)):
        lines = "".join(f"{title}\t{label}\n" for title, label in titles(count, seed))
        (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    (folder / "class.txt").write_text("".join(f"{name}\n" for name in WORDS), encoding="utf-8")
    return folder


def fine_tuning(folder: Path, tokenizer: Path) -> Callable[..., Path]:
    """Writes the YAML of tiny fine-tunings with some sections changed; makes the titles and a pretrained decoder."""
    data = write_titles(folder / "titles")
    to_megadec(random_source(tokenizer, hidden_size=33, vocabulary_size=601), folder / "pretrained")
    run = {
        "model": {"path": str(folder / "pretrained")},
        "data": {"train": str(data / "train.txt"), "dev": str(data / "dev.txt"), "sequence_length": 48},
        "loss": {"class_weights": "balanced", "weights": {"体育": 2.0}, "label_smoothing": 0.1},
        "lora": {"rank": 3, "alpha": 6.0},
        "train": {"steps": 6, "global_batch_size": 4, "micro_batch_size": 1, "precision": "fp32"},
        "optimizer": {"learning_rate": 0.01, "max_grad_norm": 0.5},
        "schedule": {"warmup_steps": 2},
        "evaluate": {"interval_steps": 3, "micro_batch_size": 2},
        "early_stopping": {"metric": "dev/accuracy"},
        "checkpoint": {"interval_steps": 0},
    }
    return lambda name, **sections: write_run(folder, name, run, sections)
