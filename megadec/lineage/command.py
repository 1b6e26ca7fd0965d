"""The command lineage: a step, or ids of documents in; which weights saw which documents out.

What a run read and did not learn from is told too, so that an answer can be checked.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.config import parse
from megadec.common.errors import ConfigError
from megadec.lineage.descendants import FirstSteps, descendants, find_models, read_run
from megadec.lineage.trained import DAMAGED_SHARD, NO_UPDATE, SKIPPED, Trained

SHOWN = 12
WORDS = {
    NO_UPDATE: "the guard left the update out or took it back",
    SKIPPED: "skipped by data.skip_documents",
    DAMAGED_SHARD: "not read, for a damaged shard",
}
ASSUMED = "assumed: it does not say what its weights left out"


@dataclass(frozen=True)
class LineageOptions:
    """run: folders of runs with checkpoints. step: show its documents. document: ids to find.

    json: print JSON in place of lines. search: folders with exports and other runs, looked through with all below them.
    until_step: look at the steps up to this one, in place of the newest checkpoint's. cache_folder: where remote shards
    are kept, in place of the run's own `data.cache.folder`, which may be a disk of another machine. data: where the
    runs' shards are now, if not where they read them: folders of shards, or ones that hold some, known by contents.
    """

    run: tuple[Path, ...]
    step: int | None = None
    document: tuple[str, ...] = ()
    search: tuple[Path, ...] = ()
    until_step: int | None = None
    cache_folder: Path | None = None
    data: tuple[str, ...] = ()
    json: bool = False

    def __post_init__(self) -> None:
        if (self.step is None) == (not self.document):
            raise ConfigError("give either --step N or --document ID ...: one of them is what is looked for")
        given = ["--search"] * (self.search != ()) + ["--until_step"] * (self.until_step is not None)
        if self.step is not None and given:
            raise ConfigError(f"{', '.join(given)} with --step {self.step}: they are for --document; leave them out")


def main(argv: Sequence[str]) -> None:
    """Print the documents of a step, or every step, checkpoint, export and later run that learned from documents."""
    options = parse(LineageOptions, argv, description="Which weights saw which documents.")
    found: dict[str, Any]
    if options.step is not None:
        runs = {
            str(run): Trained(run, options.cache_folder, options.data).documents_of_step(options.step)
            for run in options.run
        }
        found = {"step": options.step, "runs": runs}
    else:
        found = withdrawal(options)
    print(json.dumps(found, ensure_ascii=False, indent=1) if options.json else words(found))


def withdrawal(options: LineageOptions) -> dict[str, Any]:
    """Everything that documents went into: by run where they were seen, and what was made of it. Raises as `read_run`,
    `find_models` and `Trained`."""
    own, models = [read_run(folder) for folder in options.run], find_models(options.search)
    documents, first = {}, {}
    for run in own:
        trained = Trained(run.folder, options.cache_folder, options.data)
        answers = trained.steps_of_documents(options.document, options.until_step)
        documents[str(run.folder)] = answers
        learned = [one["step"] for document in answers for one in document["seen"]]
        skipped = [one["step"] for document in answers for one in document["skipped"]]
        if learned or skipped:
            first[run.folder] = FirstSteps(min(learned + skipped), min(learned, default=None))
    made = descendants(first, list({model.place: model for model in (*models, *own)}.values()))
    steps = {str(folder): one.learned for folder, one in first.items() if one.learned is not None}
    return {"documents": documents, "first_steps": steps, **made}


def words(found: Mapping[str, Any]) -> str:
    """The answer for a person at a terminal, long lists cut short."""
    return "\n".join(_step_words(found) if "step" in found else _withdrawal_words(found))


def _step_words(found: Mapping[str, Any]) -> Iterator[str]:
    for folder, sequences in found["runs"].items():
        skipped = NO_UPDATE in {one["skipped"] for one in sequences}
        yield f"{folder}, step {found['step']}: {len(sequences)} sequences" + (
            f"; {WORDS[NO_UPDATE]}" if skipped else ""
        )
        for one in sequences:
            ids = ", ".join(_named(document) for document in one["documents"])
            lost = WORDS[DAMAGED_SHARD] if one["skipped"] == DAMAGED_SHARD else ""
            yield f"  sequence {one['sequence']}: {one['set']} window {one['window']}: {lost or ids}"


def _named(document: Mapping[str, Any]) -> str:
    return str(document["id"]) + (" (skipped)" if document["skipped"] == SKIPPED else "")


def _withdrawal_words(found: Mapping[str, Any]) -> Iterator[str]:
    for folder, documents in found["documents"].items():
        yield f"{folder}:"
        for document in documents:
            yield from _document_words(document)
    kinds = ("checkpoints", "exports", "runs")
    if not found["first_steps"] and not any(found[kind] for kind in kinds):
        yield "no step of these runs has learned from them: nothing is to be withdrawn"
        return
    for kind in kinds:
        yield f"{kind} that learned from them: {'none found' if not found[kind] else ''}".rstrip()
        for one in found[kind]:
            notes = [f"from {one['from']}, step {one['step']}"] if kind == "exports" else []
            notes += [ASSUMED] if one["assumed"] else []
            yield f"  {one['path']}" + (f" ({'; '.join(notes)})" if notes else "")


def _document_words(document: Mapping[str, Any]) -> Iterator[str]:
    if document["found"]:
        places = [f"{place['set']} ({place['tokens']} tokens)" for place in document["found"]]
        yield f"  {document['id']}: in {', '.join(places)}; learned from {len(document['seen'])} time(s)"
    else:
        yield f"  {document['id']}: in none of the run's data sets"
    seen = [f"step {one['step']} sequence {one['sequence']}" for one in document["seen"]]
    skipped = [f"step {one['step']} sequence {one['sequence']} ({WORDS[one['why']]})" for one in document["skipped"]]
    for title, places in (("", seen), ("not learned from: ", skipped)):
        if places:
            more = f" and {len(places) - SHOWN} more (--json true shows all)" if len(places) > SHOWN else ""
            yield f"    {title}{', '.join(places[:SHOWN])}{more}"
    yield from (f"    {note}" for note in document["notes"])
