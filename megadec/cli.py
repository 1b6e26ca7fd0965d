"""The `megadec` command: a verb in, the function of that verb called with the other arguments.

The scripts of launch/ and tools/ call the same functions: `megadec prepare` is `python tools/prepare.py`.
"""

import importlib
import sys
from collections.abc import Sequence

from megadec.common.errors import ConfigError, check_choice, run_main

VERBS = {
    "download": "megadec.corpus.download:main",
    "prepare": "megadec.corpus.prepare:main",
    "show": "megadec.lineage.show:main",
    "train-quality": "megadec.corpus.train_quality:main",
    "train-tokenizer": "megadec.corpus.vocabulary.train:main",
    "words": "megadec.corpus.words.statistics:main",
    "word-vectors": "megadec.corpus.words.vectors:main",
    "pretrain": "megadec.pretrain.command:pretrain",
    "ray-prepare": "megadec.ray.prepare:main",
    "ray-train": "megadec.ray.train:main",
    "submit": "megadec.ray.submit:main",
    "finetune": "megadec.finetune.commands:finetune",
    "augment": "megadec.finetune.augment_command:main",
    "label": "megadec.finetune.commands:label",
    "seq2seq": "megadec.engine.command:seq2seq",
    "convert": "megadec.export.commands:convert",
    "generate": "megadec.export.commands:generate",
    "translate": "megadec.finetune.commands:translate",
    "evaluate": "megadec.finetune.commands:evaluate",
    "serve": "megadec.serve.command:main",
    "plot": "megadec.engine.metrics.plot:main",
    "mix": "megadec.plan.mix:main",
    "plan": "megadec.plan.plan:main",
    "rehearse": "megadec.rehearse.rehearsal:main",
    "lineage": "megadec.lineage.command:main",
}


def run_verb(argv: Sequence[str]) -> None:
    """Call the function of the first argument with the others. Raises ConfigError for an unknown verb."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: megadec VERB [--option VALUE ...]\n\nVERB is one of {', '.join(VERBS)};")
        print("`megadec VERB --help` lists its options")
        return
    # The deepspeed launcher puts its own option in front: `deepspeed --module megadec pretrain ...`.
    launched, argv = ([argv[0]], argv[1:]) if argv[0].startswith("--local_rank") else ([], argv)
    if not argv:
        raise ConfigError(f"a verb is missing; one of {', '.join(VERBS)} is expected")
    verb, *rest = argv
    check_choice("verb", verb, VERBS)
    module, _, function = VERBS[verb].partition(":")
    sys.argv[0] = f"megadec {verb}"  # the program's name in the help
    getattr(importlib.import_module(module), function)([*launched, *rest])


def main() -> None:
    """The console script's entry."""
    run_main(run_verb)
