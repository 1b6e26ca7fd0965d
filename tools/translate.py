"""Translate texts with a trained encoder-decoder, or measure its BLEU on pairs; JSON on standard output.

    python tools/translate.py --model runs/NAME --input "How are you?" [--beam 4]
    python tools/translate.py --model runs/NAME --pairs pairs/cmn.txt [--pairs FILE FILE] [--part held_out] [--most 500]

What is held out is chosen as in training, by the fraction that the checkpoint names; `--part all` measures every pair
of another file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.data.pairs import Part
from megadec.decoding.beam import Beam
from megadec.export.read.seq2seq import load_seq2seq
from megadec.finetune.translate import Tokenize, Translator, score_pairs


@dataclass(frozen=True)
class TranslateOptions:
    """What to translate, and how.

    model: a run or a checkpoint of launch/seq2seq.py. input: texts. pairs: one file of `source<TAB>target` lines, or
    one of sources and one of targets; without, those of the run when there is no input either.
    part: of the pairs. most: at most so many, from the first. tokenize: sacrebleu's, for the language of the target.
    beam: hypotheses followed at a time; 1 is greedy. max_new_tokens: of an answer. batch: texts searched at a time.
    """

    model: Path
    input: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    part: Part = "held_out"
    most: int | None = None
    tokenize: Tokenize = "zh"
    beam: int = 4
    length_penalty: float = 1.0
    max_new_tokens: int = 128
    batch: int = 32

    def __post_init__(self) -> None:
        if self.input and self.pairs:
            raise ConfigError("input and pairs were both given; translate texts, or measure pairs")
        if self.most is not None and self.most < 1:
            raise ConfigError(f"most={self.most} is not at least 1")


def main(argv: Sequence[str]) -> None:
    """Parse, load, translate or measure, print."""
    options = parse(TranslateOptions, argv, description="Translate with an encoder-decoder, or measure its BLEU.")
    trained = load_seq2seq(options.model)
    translator = Translator(trained, Beam(options.beam, options.max_new_tokens, options.length_penalty), options.batch)
    result: object
    if options.input:
        translations = translator.translate(options.input)
        result = [{"source": s, "translation": t} for s, t in zip(options.input, translations, strict=True)]
    else:
        pairs = trained.data.with_files(options.pairs)
        result = score_pairs(translator, pairs, options.part, most=options.most, tokenize=options.tokenize)
    print(json.dumps(result, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    run_main(main)
