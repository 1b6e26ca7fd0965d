"""The `megadec` command: a verb in, the script of that verb run with the rest of the arguments.

The table is all there is: `megadec prepare` is `python tools/prepare.py`. The scripts live beside the package in the
source tree (users read and change them), so the command needs an editable install or a checkout.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from megadec.common.errors import ConfigError, run_main, suggest

SCRIPTS = {
    "prepare": "tools/prepare.py",
    "show": "tools/show.py",
    "train-tokenizer": "tokenizer/train.py",
    "pretrain": "launch/pretrain.py",
    "ray-train": "launch/ray_train.py",
    "submit": "launch/submit.py",
    "finetune": "launch/finetune.py",
    "label": "tools/label.py",
    "seq2seq": "launch/seq2seq.py",
    "convert": "tools/convert.py",
    "generate": "tools/generate.py",
    "translate": "tools/translate.py",
    "evaluate": "tools/evaluate.py",
    "serve": "launch/serve.py",
    "plot": "tools/plot.py",
    "plan": "tools/plan.py",
    "rehearse": "tools/rehearse.py",
    "lineage": "tools/lineage.py",
}
ROOT = Path(__file__).resolve().parents[1]


def run_verb(argv: Sequence[str]) -> None:
    """Run the script of the first argument with the others. Raises ConfigError for an unknown verb."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: megadec VERB [--option VALUE ...]; `megadec VERB --help` lists the options\n")
        print("\n".join(f"  {verb:<16} {script}" for verb, script in SCRIPTS.items()))
        return
    verb, *rest = argv
    if verb not in SCRIPTS:
        raise ConfigError(f"unknown verb {verb!r}{suggest(verb, SCRIPTS)}; one of {', '.join(SCRIPTS)} is expected")
    script = ROOT / SCRIPTS[verb]
    if not script.is_file():
        raise ConfigError(f"{script} does not exist; the command needs megadec's source tree: pip install -e FOLDER")
    sys.argv = [str(script), *rest]
    runpy.run_path(str(script), run_name="__main__")


def main() -> None:
    """The console script's entry."""
    run_main(run_verb)
