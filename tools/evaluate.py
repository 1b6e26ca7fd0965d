"""Measure a model on held-out data, as JSON: what is measured depends on what the model is.

    python tools/evaluate.py --model exports/NAME-hf --data shards/wiki-test shards/news-test     # bits per character
    python tools/evaluate.py --model runs/NAME --data s3://bucket/held-out/wiki --cache.folder /data/shards  # the same
    python tools/evaluate.py --model runs/thucnews --data titles/dev.txt --confusion matrix.png   # accuracy, F1, matrix
    python tools/evaluate.py --model runs/translate [--data pairs.txt]                            # BLEU

In: a run, a checkpoint, a megadec or a Hugging Face folder, and held-out data: folders of shards or their addresses for
a language model, a file or folder of labelled texts for a classifier, one or two files of pairs for an encoder-decoder.
Out: JSON on standard output, and in `--output`. `--help` lists the options by kind of model, `--model PATH --help`
those for one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from megadec.common.config import parse, take_options
from megadec.common.errors import CheckpointError, ConfigError, run_main
from megadec.common.files import write_json
from megadec.data.pairs import Part
from megadec.decoding.beam import Beam
from megadec.engine.metrics.plot import draw_confusion
from megadec.engine.runs.common import CHECKPOINTS
from megadec.export.read.model import MANIFEST_FILE, checkpoint_of, open_model
from megadec.export.read.seq2seq import KIND as SEQ2SEQ
from megadec.export.read.seq2seq import load_seq2seq
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL
from megadec.export.score import ScoreOptions, score
from megadec.finetune.score import ClassifierScoreOptions, score_classifier
from megadec.finetune.translate import Tokenize, Translator, score_pairs


@dataclass(frozen=True)
class PairScoreOptions:
    """model: a run or a checkpoint of an encoder-decoder.

    data: one file of `source<TAB>target` lines, or one of sources and one of targets; those of its training when left
    out. output: a JSON file for the result beside standard output. part: of the pairs. most: at most so many.
    tokenize: sacrebleu's, for the language of the target. beam: hypotheses followed at a time; 1 is greedy.
    """

    model: Path
    data: tuple[str, ...] = ()
    output: Path | None = None
    part: Part = "held_out"
    most: int | None = None
    tokenize: Tokenize = "zh"
    beam: int = 4
    length_penalty: float = 1.0
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if len(self.data) > 2:
            raise ConfigError(f"data names {len(self.data)} files; one with TABs, or one of sources and one of targets")
        if self.most is not None and self.most < 1:
            raise ConfigError(f"most={self.most} is not at least 1")


def score_translations(options: PairScoreOptions) -> dict[str, Any]:
    """BLEU, with samples."""
    trained = load_seq2seq(options.model)
    translator = Translator(trained, Beam(options.beam, options.max_new_tokens, options.length_penalty))
    pairs = trained.data
    if options.data:
        source, *target = options.data
        pairs = replace(pairs, source=source, target=target[0] if target else None)
    return score_pairs(translator, pairs, options.part, most=options.most, tokenize=options.tokenize)


def score_labels(options: ClassifierScoreOptions) -> dict[str, Any]:
    """Accuracy and F1, and the picture where one is wanted."""
    result = score_classifier(options)
    if options.confusion is not None:
        title = f"{result['texts']:,} texts, accuracy {result['accuracy']:.4f}"
        draw_confusion(result["confusion"], result["labels"], options.confusion, title)
    return result


class Way(NamedTuple):
    """How models of one kind are measured."""

    options: Any
    measure: Callable[[Any], dict[str, Any]]


WAYS = {
    LANGUAGE_MODEL: Way(ScoreOptions, score),
    CLASSIFICATION: Way(ClassifierScoreOptions, score_labels),
    SEQ2SEQ: Way(PairScoreOptions, score_translations),
}


def kind_of(path: Path) -> str:
    """Which of `WAYS` the model at `path` is. Raises what opening it raises."""
    folder = checkpoint_of(path)[0] if (path / CHECKPOINTS).is_dir() else path
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        return str(open_model(path).task["kind"])
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8")).get("task", {}).get("kind", LANGUAGE_MODEL))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{manifest} is not a checkpoint's manifest: {error}") from error


def _description(kind: str) -> str:
    return f"Measure a model on held-out data: {kind.replace('_', ' ')}."


def _help() -> None:
    """The options for every kind of model, one list after the other."""
    for kind, way in WAYS.items():
        with contextlib.suppress(SystemExit):
            parse(way.options, ["--help"], description=_description(kind), program="evaluate.py")


def main(argv: Sequence[str]) -> None:
    """Look what the model is, parse the options of its kind, measure, print."""
    given, rest = take_options(argv, ("model",))
    if not given and {"-h", "--help"} & set(rest):
        _help()
        return
    kind = kind_of(Path(given["model"])) if "model" in given else LANGUAGE_MODEL
    if kind not in WAYS:
        raise ConfigError(f"{given['model']} holds a {kind} model; one of {', '.join(WAYS)} can be measured")
    way = WAYS[kind]
    options = parse(way.options, argv, description=_description(kind))
    result = way.measure(options)
    if options.output is not None:
        write_json(options.output, result)
    print(json.dumps(result, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    run_main(main)
