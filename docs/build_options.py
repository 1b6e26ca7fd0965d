"""Write docs/en/options.md and docs/zh/options.md: every option of every command, from the dataclasses themselves.

    python docs/build_options.py

tests/rules/test_docs.py fails when a page is not what this writes.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megadec.common.config import Option, options_of
from megadec.corpus.download import DownloadOptions
from megadec.corpus.options import PrepareOptions
from megadec.corpus.train_quality import TrainQualityOptions
from megadec.corpus.vocabulary.train import TokenizerOptions
from megadec.corpus.words.statistics import WordsOptions
from megadec.corpus.words.vectors import WordVectorOptions
from megadec.engine.metrics.plot import PlotOptions
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.seq2seq import PairsRun
from megadec.export.commands import ConvertOptions, GenerateOptions
from megadec.export.score import ScoreOptions
from megadec.finetune.augment_command import AugmentFileOptions
from megadec.finetune.commands import PairScoreOptions, TranslateOptions
from megadec.finetune.pseudo_labels import PseudoOptions
from megadec.finetune.score import ClassifierScoreOptions
from megadec.finetune.task import FineTuneRun
from megadec.lineage.command import LineageOptions
from megadec.lineage.show import ShowOptions
from megadec.plan.mix import MixOptions
from megadec.plan.plan import PlanOptions
from megadec.ray.submit import SubmitOptions
from megadec.ray.train import RayRun
from megadec.rehearse.rehearsal import RehearsedRun
from megadec.serve.options import ServeOptions

COMMANDS: list[tuple[str, type]] = [
    ("megadec download", DownloadOptions),
    ("megadec prepare", PrepareOptions),
    ("megadec train-quality", TrainQualityOptions),
    ("megadec train-tokenizer", TokenizerOptions),
    ("megadec words", WordsOptions),
    ("megadec word-vectors", WordVectorOptions),
    ("megadec show", ShowOptions),
    ("megadec pretrain", PretrainRun),
    ("megadec finetune", FineTuneRun),
    ("megadec seq2seq", PairsRun),
    ("megadec ray-train", RayRun),
    ("megadec submit", SubmitOptions),
    ("megadec plot", PlotOptions),
    ("megadec mix", MixOptions),
    ("megadec plan", PlanOptions),
    ("megadec rehearse", RehearsedRun),
    ("megadec convert", ConvertOptions),
    ("megadec generate", GenerateOptions),
    ("megadec evaluate: language models", ScoreOptions),
    ("megadec evaluate: classifiers", ClassifierScoreOptions),
    ("megadec evaluate: encoder-decoders", PairScoreOptions),
    ("megadec augment", AugmentFileOptions),
    ("megadec label", PseudoOptions),
    ("megadec translate", TranslateOptions),
    ("megadec lineage", LineageOptions),
    ("megadec serve", ServeOptions),
]
# A run's sections that `pretrain` has already are not listed again under another command.
RUNS = {FineTuneRun, PairsRun, RayRun, RehearsedRun}

INTRO = {
    "en": """# Options

Every option of every command, with its type and default. `python docs/build_options.py` writes this page from the
dataclasses that the commands are made of. Options are given as `--section.key VALUE` (`--section.key-with-hyphens` is
the same), or as keys of the YAML file that `--config` names; the command line goes first. The commands that train take
`--deepspeed FILE` beside these; what they share with `pretrain` is listed there.
""",
    "zh": """# 选项

每条命令的每个选项，连同类型和默认值。本页由 `python docs/build_options.py` 从各命令的 dataclass 生成，
说明文字与 `--help` 相同（英文）。选项写作 `--section.key VALUE`（`--section.key-with-hyphens` 等价），
或写成 `--config` 所指 YAML 文件里的键；命令行优先。训练命令另有 `--deepspeed FILE`；
它们与 pretrain 相同的选项只列在 pretrain 下。
""",
}
HEADER = {"en": "| option | type | default | what it is |", "zh": "| 选项 | 类型 | 默认值 | 说明 |"}


def page(language: str) -> str:
    """The whole page."""
    shared = {(option.name, option.help) for option in options_of(PretrainRun)}
    parts = [INTRO[language]]
    for title, kind in COMMANDS:
        rows = [o for o in options_of(kind) if kind not in RUNS or (o.name, o.help) not in shared]
        parts.append("\n".join([f"## {title}", "", HEADER[language], "|---|---|---|---|", *map(_row, rows), ""]))
    return "\n".join(parts)


def _row(option: Option) -> str:
    cells = (f"`--{option.name}`", _kind(option.annotation), _default(option.default), option.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(annotation: Any) -> str:
    """`int`, `a, b or c` for a Literal, `one or more paths` for a tuple of them."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(one) for one in arguments if one is not type(None))
    if origin in (tuple, list):
        return f"{_kind(arguments[0])} ..."
    if origin is dict:
        return f"{_kind(arguments[0])}: {_kind(arguments[1])}"
    if dataclasses.is_dataclass(annotation):
        return "section"
    return {"Path": "path", "str": "text", "bool": "true, false"}.get(annotation.__name__, annotation.__name__)


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value in ("", (), {}):
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def pages() -> Iterator[tuple[Path, str]]:
    """Each page's path and text."""
    for language in INTRO:
        yield Path(__file__).parent / language / "options.md", page(language)


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
        print(path, file=sys.stderr)
