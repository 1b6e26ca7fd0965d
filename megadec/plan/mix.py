"""The command mix: a data card or a run in, the token budget of each source out.

The figures are those of the run's own stream: the same windows in the same order, counted and not read.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from megadec.common.config import parse, take_options
from megadec.common.errors import ConfigError
from megadec.data.card import CardSource, read_card
from megadec.data.dataset import DataSet
from megadec.engine.runs.open_pretrain import (
    allowed_epochs,
    check_there,
    folders_of,
    last_step_of,
    open_sets,
    stream_of,
)
from megadec.engine.runs.pretrain import PretrainRun

DESCRIPTION = """What a run sees of each source: tokens, share, epochs, documents. Options of launch/pretrain.py
are taken too, --config FILE and --section.key VALUE."""
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_TOKENS = re.compile(r"(\d+(?:\.\d*)?(?:[eE]\+?\d+)?)([KMBT]?)")


@dataclass(frozen=True)
class MixOptions:
    """What is counted, beside the run.

    Attributes:
        card: a data card, in place of the run's own mixture.
        tokens: how long it trains, in place of train.steps, `10B` or 1e10; rounded to whole steps.
        documents: whether documents are counted, for which the tokens of a set that is not seen whole are read.
        json: print JSON in place of a table.
    """

    card: str | None = None
    tokens: str | None = None
    documents: bool = True
    json: bool = False


@dataclass(frozen=True)
class SourceBudget:
    """What a run sees of one source.

    tokens: its predictions, each as often as it is seen; share: of all tokens of the run. epochs: how often the whole
    source goes by, allowed_epochs: how often it may. documents: of which a part is seen, of documents_there; None where
    they were not counted. card_licences, index_licences: as the card states them (None: there is no card), and as its
    shards do.
    """

    name: str
    shards: str
    sha256: str
    tokens: int
    share: float
    epochs: float
    allowed_epochs: float | None
    documents: int | None
    documents_there: int
    card_licences: tuple[str, ...] | None
    index_licences: tuple[str, ...]


@dataclass(frozen=True)
class Mix:
    """The budget of a run. tokens: of all sources; padding: places of its sequences that hold none."""

    steps: int
    tokens: int
    padding: int
    sources: tuple[SourceBudget, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sources = [{field.name: getattr(one, field.name) for field in fields(one)} for one in self.sources]
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "sources": sources}


def mix_of(run: PretrainRun, card: Mapping[str, CardSource], *, count_documents: bool = True) -> Mix:
    """The budget of a run over all its stages; `card` gives its sources their names and licences, where there is one.

    Raises ConfigError for a run that cannot be, ShardError for shards that cannot be read.
    """
    from megadec.data.budget import budget_of, over_epochs  # bring torch, which a wrong request need not wait for

    allowed, folders = allowed_epochs(run), folders_of(run)
    check_there(folders)
    sets, steps = open_sets(run), last_step_of(run)
    budgets = budget_of(stream_of(run, sets), steps, count_documents=count_documents)
    total = sum(budget.tokens for budget in budgets)
    named = {source.shards: (name, source.licences) for name, source in card.items()}
    sources = []
    for folder, data, budget in zip(folders, sets, budgets, strict=True):
        name, licences = named.get(folder, (folder, None))
        sources.append(
            SourceBudget(
                name=name,
                shards=folder,
                sha256=data.sha256,
                tokens=budget.tokens,
                share=budget.tokens / max(total, 1),
                epochs=budget.epochs,
                allowed_epochs=allowed.get(folder),
                documents=budget.documents,
                documents_there=data.documents,
                card_licences=licences,
                index_licences=licences_of(data),
            )
        )
    by_name = {source.name: budget for source, budget in zip(sources, budgets, strict=True)}
    may_be = {source.name: source.allowed_epochs for source in sources if source.allowed_epochs is not None}
    warnings = (*over_epochs(by_name, may_be), *filter(None, map(licence_warning, sources)))
    return Mix(steps, total, sum(budget.padding for budget in budgets), tuple(sources), warnings)


def licences_of(data: DataSet) -> tuple[str, ...]:
    """The licences that the index of a data set states, of all its documents."""
    return tuple(data.index["licences"])


def licence_warning(source: SourceBudget) -> str | None:
    """What is wrong with the licences of a source, or None."""
    here, there = source.card_licences, source.index_licences
    if not here and not there:
        return f"{source.name}: no licence is known, neither from the card nor from its shards"
    if here is None or set(here) == set(there):
        return None
    if not here:
        return f"{source.name}: the card states no licence, its shards state {', '.join(there)}"
    return f"{source.name}: the card states {', '.join(here)}, its shards {', '.join(there) or 'none'}"


def table(mix: Mix) -> str:
    """The budget for a person at a terminal."""
    width = max(len(source.name) for source in mix.sources)
    places = mix.tokens + mix.padding
    head = f"{mix.tokens:,} tokens in {mix.steps:,} steps, {mix.padding / places:.1%} of their places padding"
    columns = (
        f"{'source':<{width}} {'tokens':>16} {'share':>7} {'epochs':>8} {'allowed':>8} {'documents':>12} {'of':>12}"
    )
    lines = [head, f"{columns}  licences"]
    for one in mix.sources:
        allowed = "" if one.allowed_epochs is None else f"{one.allowed_epochs:g}"
        documents = "" if one.documents is None else f"{one.documents:,}"
        licences = ", ".join(one.card_licences or one.index_licences) or "none"
        lines.append(
            f"{one.name:<{width}} {one.tokens:>16,} {one.share:>7.1%} {one.epochs:>8.2f} {allowed:>8} {documents:>12}"
            f" {one.documents_there:>12,}  {licences}"
        )
    return "\n".join([*lines, *(f"warning: {sentence}" for sentence in mix.warnings)])


def read_tokens(text: str) -> float:
    """`10B` or 1e10 as a number. Raises ConfigError."""
    match = _TOKENS.fullmatch(text)
    tokens = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not tokens:
        raise ConfigError(f"tokens={text} is no number of tokens above 0, such as 300M, 10B or 1e10")
    return tokens


def lasting(run: PretrainRun, tokens: float) -> PretrainRun:
    """The run for so many tokens, in whole steps. Raises ConfigError for one with stages."""
    if run.stages:
        raise ConfigError("tokens says how long to train, and so do the run's stages: leave it out")
    steps = max(1, round(tokens / (run.train.global_batch_size * run.data.sequence_length)))
    return replace(run, train=replace(run.train, steps=steps))


def main(argv: Sequence[str]) -> None:
    """Print the budget as a table or as JSON."""
    if "-h" in argv or "--help" in argv:
        parse(MixOptions, ["--help"], description=DESCRIPTION)
    own, rest = take_options(argv, [field.name for field in fields(MixOptions)])
    options = parse(MixOptions, [f"--{key}={value}" for key, value in own.items()], description=DESCRIPTION)
    given = {argument.partition("=")[0].removeprefix("--") for argument in rest}
    if options.card is not None:
        rest += ["--data.card", options.card]
    if options.tokens is None and not {"config", "train.steps"} & given:
        raise ConfigError("how long does it train? Give --tokens 10B, --train.steps, or a run file with --config")
    if "config" not in given:  # a mixture alone has no name and no tokenizer
        rest = [*(word for key in ("name", "tokenizer") if key not in given for word in (f"--{key}", "mix")), *rest]
    run = parse(PretrainRun, rest, description=DESCRIPTION)
    if options.tokens is not None:
        run = lasting(run, read_tokens(options.tokens))
    card = read_card(options.card).sources if options.card is not None else {}
    mix = mix_of(run, card, count_documents=options.documents)
    print(json.dumps(mix.to_dict(), ensure_ascii=False, indent=1) if options.json else table(mix))
