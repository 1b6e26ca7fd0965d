"""Fine-tuned decoders against a linear SVM on labelled texts: one table, every row measured on the same held-out set.

    python bench/titles.py --data FOLDER --model exports/NAME-hf --output bench/results/thucnews_cpu \
        [--runs full:0 full:1 taught:0 lora:0 frozen:0 scratch:0] [--unlabelled more.parquet] [--ranks 2]

In: a folder with train.txt, dev.txt and class.txt (a title, a tab, a number a line), and a pretrained model. Out: a
folder with results.json and a confusion matrix of each row as a picture, and JSON on standard output. Each run is
`launch/finetune.py` through the deepspeed launcher; one that has ended already (runs/NAME) is measured and not trained
again. `taught` is `full` with what the full runs before it say (tools/label.py) of the training texts, and of texts
without labels, as further examples. The baseline is scikit-learn's LinearSVC on TF-IDF of character 1-3-grams. The
held-out set also chooses each run's best checkpoint, which flatters the decoders by a few tenths of a point against the
SVM; figures of the last step are given beside it.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from megadec.common.config import parse
from megadec.common.errors import ConfigError, MissingExtraError, TrainingError, run_main
from megadec.common.files import write_json
from megadec.common.processes import free_port
from megadec.decoder.flops import sizes_of
from megadec.decoder.model import Decoder
from megadec.engine.metrics.options import FILE_NAME as METRICS_FILE
from megadec.engine.metrics.plot import draw_confusion
from megadec.export.read.open_model import open_model
from megadec.finetune.examples import LabelledOptions, LabelledText, read_labelled
from megadec.finetune.lora import METHODS, LoraOptions, Method, adapted, trains
from megadec.finetune.pseudo_labels import PseudoOptions, label_texts
from megadec.finetune.score import ClassifierScoreOptions, figures, label_numbers, score_classifier

TRAIN, HELD_OUT, CLASSES = "train.txt", "dev.txt", "class.txt"
# The best of C in {0.3, 0.5, 1} x {all n-grams, those of two texts} x {tf, 1 + log tf} on THUCNews titles.
SVM_C, SVM_LEAST_TEXTS = 1.0, 2
STANDARD_ERROR = 2  # the launcher speaks there: standard output is for the table
TAUGHT = "taught"
SHOWN = ("method", "seed", "taught_by", "trained_parameters", "steps", "seconds", "accuracy", "accuracy_of_last_step")

Texts = Sequence[LabelledText]


@dataclass(frozen=True)
class BenchOptions:
    """data: the folder of titles. model: the pretrained decoder. output: a folder for the results.

    runs: METHOD:SEED each; none gives the baseline alone. unlabelled: further texts for `taught`. run_file, deepspeed:
    of launch/finetune.py. name: of the runs, followed by method and seed. ranks: processes. options: further options
    of a method, `{lora: "--epochs 4"}`.
    """

    data: Path
    model: Path
    output: Path
    runs: tuple[str, ...] = ("full:0", "full:1", "taught:0", "lora:0", "frozen:0", "scratch:0")
    unlabelled: tuple[Path, ...] = ()
    run_file: Path = Path("launch/runs/thucnews.yaml")
    deepspeed: Path = Path("ds_configs/zero2.json")
    name: str = "thucnews"
    ranks: int = 2
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = (*METHODS, TAUGHT)
        for number, run in enumerate(self.runs):
            method, _, seed = run.partition(":")
            if method not in known or not seed.isdecimal():
                raise ConfigError(f"runs: {run!r} is not METHOD:SEED with a method of {', '.join(known)}")
            if method == TAUGHT and not self.teachers(number):
                raise ConfigError(f"runs: {run!r} needs a run of the method full before it, to be taught by")

    def teachers(self, number: int) -> tuple[str, ...]:
        """The full runs before the run of this number."""
        return tuple(run for run in self.runs[:number] if run.startswith("full:"))

    def folder(self, run: str) -> Path:
        """Where launch/finetune.py leaves METHOD:SEED."""
        return Path("runs") / f"{self.name}_{run.replace(':', '_')}"


def linear_svm(
    train: Sequence[LabelledText],
    held_out: Sequence[LabelledText],
    labels: Sequence[str],
    least_texts: int = SVM_LEAST_TEXTS,
) -> dict[str, Any]:
    """The baseline's figures, the number of its features, and the seconds that it took.

    least_texts: n-grams that stand in fewer are left out.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "finetune") from error
    began = time.perf_counter()
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=least_texts, sublinear_tf=True)
    model = LinearSVC(C=SVM_C, random_state=0)
    model.fit(grams.fit_transform([one.text for one in train]), label_numbers(train, labels))
    said_N = model.predict(grams.transform([one.text for one in held_out]))
    return {
        "method": "linear SVM, character 1-3-grams",
        "trained_parameters": int(model.coef_.size + model.intercept_.size),
        "seconds": round(time.perf_counter() - began, 1),
        **figures(label_numbers(held_out, labels), np.asarray(said_N), labels),
    }


def teach(options: BenchOptions, number: int) -> Path:
    """What the full runs before the run of this number say of the texts, as a file for data.soft; made once."""
    folder = options.folder(options.runs[number])
    output = folder.with_name(f"{folder.name}.jsonl")
    if output.exists():
        return output
    models = tuple(options.folder(run) for run in options.teachers(number))
    label_texts(PseudoOptions(models=models, input=(options.data / TRAIN, *options.unlabelled), output=output))
    return output


def fine_tune(options: BenchOptions, number: int) -> dict[str, Any]:
    """Train (unless that was done before) and measure one run, by its number. Raises TrainingError when it fails."""
    began = time.perf_counter()
    run = options.runs[number]
    named, _, seed = run.partition(":")
    method = cast(Method, "full" if named == TAUGHT else named)
    soft = ["--data.soft", str(teach(options, number))] if named == TAUGHT else []
    command = [
        *(str(Path(sys.executable).parent / "deepspeed"), "--num_accelerators", str(options.ranks)),
        *("--master_port", str(free_port()), "launch/finetune.py", "--deepspeed", str(options.deepspeed)),
        *("--config", str(options.run_file), "--name", options.folder(run).name, "--method", method, "--seed", seed),
        *("--model.path", str(options.model)),
        *("--data.train", str(options.data / TRAIN), "--data.dev", str(options.data / HELD_OUT), *soft),
        *options.options.get(named, "").split(),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    status = subprocess.run(command, check=False, stdout=STANDARD_ERROR, env=environment).returncode
    if status:
        raise TrainingError(f"{' '.join(command)} ended with status {status}")
    return {
        "command": " ".join(["deepspeed", *command[1:]]),
        "wall_seconds": round(time.perf_counter() - began, 1),
        **measured(options.folder(run), method, int(seed), options.data / HELD_OUT),
        **({"taught_by": options.teachers(number)} if soft else {}),
    }


def measured(folder: Path, method: Method, seed: int, held_out: Path) -> dict[str, Any]:
    """The figures of a run of launch/finetune.py that has ended."""
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluate"]
    return {
        "method": method,
        "seed": seed,
        "trained_parameters": _trained_parameters(folder, method),
        "seconds": round(sum(line["seconds"] for line in steps), 1),
        "steps": steps[-1]["step"],
        "accuracy_of_last_step": evaluations[-1]["accuracy"],
        **score_classifier(ClassifierScoreOptions(model=folder, data=held_out)),
    }


def _trained_parameters(folder: Path, method: Method) -> int:
    source = open_model(folder)
    assert source.classes is not None, "a run of launch/finetune.py holds a classifier"
    lora = source.task.get("lora")
    known = LoraOptions(lora["rank"], lora["alpha"], tuple(lora["targets"])) if lora else LoraOptions()
    sizes = sizes_of(lambda: adapted(Decoder(source.shape, classes=source.classes), method, known))
    return sum(math.prod(size) for name, size in sizes.items() if trains(method, name))


def main(argv: Sequence[str]) -> None:
    """Measure the baseline, train and measure each run, write after each what is known."""
    options = parse(BenchOptions, argv, description="Fine-tuned decoders against a linear SVM.")
    labels = (options.data / CLASSES).read_text(encoding="utf-8").split()
    train, held_out = (list(read_labelled(options.data / name, LabelledOptions())) for name in (TRAIN, HELD_OUT))
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, run in enumerate(("svm", *options.runs), start=-1):
        row = linear_svm(train, held_out, labels) if number < 0 else fine_tune(options, number)
        title = f"{row['method']}: {row['accuracy']:.4f} of {row['texts']:,} titles"
        draw_confusion(row["confusion"], row["labels"], options.output / f"{run.replace(':', '_')}.png", title)
        rows.append(row)
        result = {"model": str(options.model), "train": len(train), "held_out": len(held_out), "rows": rows}
        write_json(options.output / "results.json", result)
    print(
        json.dumps([{key: row.get(key) for key in SHOWN} | row["macro"] for row in rows], ensure_ascii=False, indent=1)
    )


if __name__ == "__main__":
    run_main(main)
