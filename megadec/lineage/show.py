"""The command show: a data set, or a run and steps in; the index, windows or batches with their documents out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megadec.common.config import parse
from megadec.common.errors import ConfigError
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.overlap import Sketch, overlaps
from megadec.corpus.document import full_text, read_documents
from megadec.data.dataset import DataSet
from megadec.data.describe import describe_set, describe_step, describe_window
from megadec.data.windows import Packing, plan_windows

log = logger(__name__)


@dataclass(frozen=True)
class ShowOptions:
    """data: folders of shards, their addresses, or .parquet files of documents; several are also told apart by how many
        documents they have in common. With --run: where its shards are now, if not where it read them (folders of
        shards or ones that hold some, known by their contents).
    window: show the documents of these windows instead of the index.
    sequence_length, packing: what a window is. tokenizer: shows how the text of each piece begins. verify: read all
    shards and compare their hashes with the index. run, step: show the batch of these steps of a run, the first of
    which is 1. sequence: only these sequences of it, counted over all ranks from 0.
    """

    data: tuple[str, ...] = ()
    window: tuple[int, ...] = ()
    sequence_length: int = 1024
    packing: Packing = "cut"
    tokenizer: Path | None = None
    verify: bool = False
    run: Path | None = None
    step: tuple[int, ...] = ()
    sequence: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.data and self.run is None:
            raise ConfigError("give --data, a folder of shards, or --run with --step")
        if self.run is not None and (not self.step or min(self.step) < 1):
            raise ConfigError("--run needs --step with the steps to show; the first step of a run is 1")


def describe_documents(path: Path, sketch: Sketch, shown: int = 3) -> str:
    """What a file of documents holds: how many, by source and label, and how the first few begin; fills `sketch`."""
    by_kind: Counter[str] = Counter()
    characters, begins = 0, list[str]()
    for document in read_documents([path]):
        by_kind[" ".join(filter(None, (document.source, document.label, document.variant, document.licence)))] += 1
        characters += len(document.text)
        sketch.add(full_text(document))
        if len(begins) < shown:
            begins.append(f"  {document.id}: {full_text(document)[:60]!r}")
    kinds = [f"  {count:>9,} {kind}" for kind, count in by_kind.most_common(20)]
    left = [f"  and {len(by_kind) - 20} more kinds"] if len(by_kind) > 20 else []
    head = f"{path}: {by_kind.total():,} documents, {characters:,} characters; by source, label, script and licence:"
    return "\n".join([head, *kinds, *left, "the first:", *begins])


def main(argv: Sequence[str]) -> None:
    """Print what an index says, which documents some windows hold, or which were in the batch of a step."""
    options = parse(ShowOptions, argv, description="Show what a data set or the batch of a step holds.")
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    if options.run is not None:
        from megadec.lineage.trained import Trained  # brings DeepSpeed, which takes seconds

        trained = Trained(options.run, data=options.data)
        for step in options.step:
            if trained.last_step is not None and step > trained.last_step:
                log.warning(
                    f"step {step} is behind the newest checkpoint ({trained.last_step}): shown as it would be now"
                )
            print(describe_step(trained.stream_at(step), step, options.sequence, tokenizer))
        return
    sketches: dict[str, Sketch] = {}
    for place in options.data:
        if place.endswith(".parquet"):
            sketches[place] = Sketch()
            print(describe_documents(Path(place), sketches[place]))
        else:
            sketches[place] = _show_set(options, place, tokenizer).sketch
    for sentence in overlaps(sketches):
        print(sentence)


def _show_set(options: ShowOptions, folder: str, tokenizer: Tokenizer | None) -> DataSet:
    data = DataSet.open(folder, tokenizer.sha256 if tokenizer else None)
    if options.verify:
        data.verify()
        print(f"{data.folder}: every shard is as its index says")
    if not options.window:
        print(describe_set(data))
        return data
    plan = plan_windows(data, options.sequence_length, options.packing)
    for window in options.window:
        if not 0 <= window < plan.windows:
            raise ConfigError(f"--window {window}: {data.folder} has the windows 0 to {plan.windows - 1}")
        print(describe_window(plan, window, tokenizer))
    return data
