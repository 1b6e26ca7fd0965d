"""The commands finetune, label, translate and evaluate: an argument list in, one library call, the result printed.

How `evaluate` measures depends on what the model is; `evaluate --help` lists the options of each kind, and with
--model those of that model's kind.
"""

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.config import parse, take_options
from megadec.common.errors import ConfigError, ModelFolderError, check_range
from megadec.common.files import write_json
from megadec.common.schema import read_object, without_null
from megadec.data.pairs import Part
from megadec.decoding.beam import Beam
from megadec.engine.command import train_command
from megadec.engine.runs.common import CHECKPOINTS
from megadec.export.read.open_model import MANIFEST_FILE, checkpoint_of, open_model
from megadec.export.read.seq2seq import KIND as SEQ2SEQ
from megadec.export.read.seq2seq import load_seq2seq
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL
from megadec.export.runtimes import runtime_of, task_of_export
from megadec.export.score import ScoreOptions, score
from megadec.finetune.pseudo_labels import PseudoOptions, label_texts
from megadec.finetune.score import ClassifierScoreOptions, score_classifier
from megadec.finetune.task import FineTuneRun, open_finetune
from megadec.finetune.translate import Tokenize, Translator, score_pairs


def finetune(argv: Sequence[str]) -> None:
    """Train a classifier as one rank of a launcher; metrics and checkpoints go to the run's folder."""
    description = "Fine-tune a pretrained decoder to classify texts."
    train_command(argv, FineTuneRun, open_finetune, description=description, program="launch/finetune.py")


def label(argv: Sequence[str]) -> None:
    """Write what classifiers say of texts, and print how many there were."""
    print(json.dumps(label_texts(parse(PseudoOptions, argv, description="Label texts with finished classifiers."))))


@dataclass(frozen=True)
class SearchOptions:
    """model: a run or a checkpoint of an encoder-decoder (launch/seq2seq.py).

    part: of the pairs; what is held out is chosen as in training. most: at most so many, from the first. tokenize:
    sacrebleu's, for the language of the target. beam: hypotheses followed at a time; 1 is greedy. length_penalty:
    power of the length that a hypothesis's log-probability is divided by. max_new_tokens: of an answer.
    """

    model: Path
    part: Part = "held_out"
    most: int | None = None
    tokenize: Tokenize = "zh"
    beam: int = 4
    length_penalty: float = 1.0
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        check_range(self, "", "most", least=1)

    def open(self, batch: int = 32) -> Translator:
        """The model, and how it is searched."""
        return Translator(load_seq2seq(self.model), Beam(self.beam, self.max_new_tokens, self.length_penalty), batch)

    def score(self, translator: Translator, files: Sequence[str]) -> dict[str, Any]:
        """BLEU with samples, on the pairs of these files; without any, on those of the training."""
        pairs = translator.trained.data.with_files(files)
        return score_pairs(translator, pairs, self.part, most=self.most, tokenize=self.tokenize)


@dataclass(frozen=True)
class TranslateOptions(SearchOptions):
    """What is translated, beside the search.

    input: texts. pairs: one file of `source<TAB>target` lines, or one of sources and one of targets; those of the run
    when there is no input either. batch: texts searched at a time.
    """

    input: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    batch: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input and self.pairs:
            raise ConfigError("input and pairs were both given; translate texts, or measure pairs")


def translate(argv: Sequence[str]) -> None:
    """Print translations of texts, or BLEU on pairs, as JSON."""
    options = parse(TranslateOptions, argv, description="Translate with an encoder-decoder, or measure its BLEU.")
    translator = options.open(options.batch)
    result: object
    if options.input:
        pairs = zip(options.input, translator.translate(options.input), strict=True)
        result = [{"source": source, "translation": translation} for source, translation in pairs]
    else:
        result = options.score(translator, options.pairs)
    print(json.dumps(result, ensure_ascii=False, indent=1))


@dataclass(frozen=True)
class PairScoreOptions(SearchOptions):
    """What is measured, beside the search.

    data: one file of `source<TAB>target` lines, or one of sources and one of targets; those of the training when left
    out. output: a JSON file for the result beside standard output.
    """

    data: tuple[str, ...] = ()
    output: Path | None = None


# What the model is -> its options, and the function that measures.
MEASURES: dict[str, tuple[Any, Callable[[Any], dict[str, Any]]]] = {
    LANGUAGE_MODEL: (ScoreOptions, score),
    CLASSIFICATION: (ClassifierScoreOptions, score_classifier),
    SEQ2SEQ: (PairScoreOptions, lambda options: options.score(options.open(), options.data)),
}


def kind_of(path: Path) -> str:
    """What the model at `path` was trained for. Raises what opening it raises."""
    if runtime_of(path) is not None:
        return task_of_export(path)
    folder = checkpoint_of(path)[0] if (path / CHECKPOINTS).is_dir() else path
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        return str(open_model(path).task["kind"])
    stated = without_null(read_object(manifest, {"task": {"kind": str}}, ModelFolderError))
    return str(stated.get("task", {}).get("kind", LANGUAGE_MODEL))


def evaluate(argv: Sequence[str]) -> None:
    """Measure a model on held-out data; print the result, and write it where `output` says."""
    given, rest = take_options(argv, ("model",))
    if not given and {"-h", "--help"} & set(rest):
        for kind in MEASURES:
            with contextlib.suppress(SystemExit):
                _parse(kind, ["--help"])
        return
    kind = kind_of(Path(given["model"])) if given else LANGUAGE_MODEL
    if kind not in MEASURES:
        raise ConfigError(f"{given['model']} holds a {kind} model; one of {', '.join(MEASURES)} can be measured")
    options = _parse(kind, argv)
    result = MEASURES[kind][1](options)
    if options.output is not None:
        write_json(options.output, result)
    shown = json.dumps(result, ensure_ascii=False, indent=1)
    # A row of a confusion matrix on a line.
    print(re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", shown))


def _parse(kind: str, argv: Sequence[str]) -> Any:
    return parse(MEASURES[kind][0], argv, description=f"Measure a model on held-out data: {kind.replace('_', ' ')}.")
