"""The report card of a vocabulary: what it does to text that it has not seen, and whether it loses any.

In: a tokenizer and files of documents. Out: figures by source (a JSON value) and the same as Markdown. Every document
is encoded and decoded again, a minute or two for a hundred million characters, so that "lossless" is a count and not a
sample.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from megadec.common.errors import ConfigError, suggest
from megadec.common.files import read_json, whole_file, write_json
from megadec.common.log import progress
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.clean.variant import TRADITIONAL, variant_of
from megadec.corpus.dedup import digest_of, is_held_out
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import map_in_order

CHUNK_DOCUMENTS = 256
LOSSES_SHOWN = 10
PIECES_SHOWN = 16
VARIANT_OF = ", "
# The page leaves out the variants of a source that are only strays, and the one that is all but those.
STRAYS_FRACTION = 0.02


@dataclass
class Tally:
    """Counts over some documents."""

    documents: int = 0
    characters: int = 0
    tokens: int = 0
    byte_tokens: int = 0
    lossless: int = 0

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def to_dict(self) -> dict[str, Any]:
        tokens = max(self.tokens, 1)
        return {
            **vars(self),
            "characters_per_token": round(self.characters / tokens, 4),
            "byte_token_percent": round(100 * self.byte_tokens / tokens, 4),
        }


@dataclass
class Measured:
    """What a chunk of documents gave: tallies by (source, variant, held out), uses of each piece, ids not restored."""

    tallies: dict[tuple[str, str, bool], Tally] = field(default_factory=lambda: defaultdict(Tally))
    uses: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lost: list[str] = field(default_factory=list)
    encode_seconds: float = 0.0

    def add(self, other: Measured) -> None:
        for kind, tally in other.tallies.items():
            self.tallies.setdefault(kind, Tally()).add(tally)
        self.uses = other.uses if not self.uses.size else self.uses + other.uses
        self.lost = (self.lost + other.lost)[:LOSSES_SHOWN]
        self.encode_seconds += other.encode_seconds


def measure(
    model: Path, paths: Sequence[Path], held_out_fraction: float, workers: int, groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Encode and decode every document of the files; figures over all of it and over the held-out part alone.

    `groups` name several sources together. Raises TokenizerError, InputError, and ConfigError for an unknown source.
    """
    began = time.monotonic()
    tokenizer = Tokenizer.load(model)
    total = Measured(uses=np.zeros(tokenizer.vocabulary_size, dtype=np.int64))
    chunks = _chunks(read_documents(paths))
    bar = progress(description="report", unit="doc")
    for measured in map_in_order(partial(measure_chunk, model, held_out_fraction), chunks, workers):
        total.add(measured)
        bar.update(sum(tally.documents for tally in measured.tallies.values()))
    bar.close()
    everything = _sum(total.tallies.values())
    return {
        "tokenizer": {"sha256": tokenizer.sha256, "vocabulary_size": tokenizer.vocabulary_size},
        "held_out_fraction": held_out_fraction,
        "kinds": _rows(total, groups),
        "documents": everything.documents,
        "lossless": everything.lossless,
        "not_lossless": total.lost,
        "pieces_never_used": int((total.uses == 0).sum()),
        "characters_per_second": round(everything.characters / max(total.encode_seconds, 1e-9)),
        "seconds": round(time.monotonic() - began, 1),
        "pieces": sample_pieces(tokenizer),
    }


def measure_chunk(model: Path, held_out_fraction: float, documents: list[Document]) -> Measured:
    """Figures of some documents. Runs in any process."""
    tokenizer = _tokenizer(model)
    texts = [full_text(document) for document in documents]
    began = time.monotonic()
    encoded = tokenizer.encode_many(texts)
    measured = Measured(uses=np.zeros(tokenizer.vocabulary_size, dtype=np.int64))
    measured.encode_seconds = time.monotonic() - began
    for document, text, ids in zip(documents, texts, encoded, strict=True):
        held_out = is_held_out(digest_of(text), held_out_fraction)
        lossless = tokenizer.decode(ids) == text
        byte_tokens = int(tokenizer.is_byte[ids].sum())
        kind = (document.source, document.variant, held_out)
        measured.tallies[kind].add(Tally(1, len(text), len(ids), byte_tokens, int(lossless)))
        measured.uses += np.bincount(ids, minlength=tokenizer.vocabulary_size)
        if not lossless:
            measured.lost.append(f"{document.source}: {document.id}")
    measured.tallies = dict(measured.tallies)
    return measured


def sample_pieces(tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Some pieces of each sort, in the order they were learned."""
    pieces = [piece.decode("utf-8", "replace") for piece in tokenizer.pieces]
    texts = [text for text, is_byte in zip(pieces, tokenizer.is_byte, strict=True) if text and not is_byte]
    han = [text for text in texts if all("\u4e00" <= character <= "\u9fff" for character in text)]
    longest = max(map(len, texts))
    sorts = {f"Han, {n} characters": [text for text in han if len(text) == n] for n in range(1, longest + 1)}
    sorts["Traditional"] = [text for text in han if len(text) > 1 and variant_of(text) == TRADITIONAL]
    sorts["over punctuation"] = [t for t in texts if any(c in "，。！？；：、" for c in t) and len(t) > 2]
    sorts["digits"] = [text for text in texts if text.isdigit() and text.isascii()]
    sorts["Latin"] = [text for text in texts if text.strip().isascii() and text.strip().isalpha() and len(text) > 2]
    sorts["blanks and newlines"] = [text for text in texts if not text.strip()]
    return {name: [str(len(found)), *found[:PIECES_SHOWN]] for name, found in sorts.items() if found}


def render(report: Mapping[str, Any], title: str) -> str:
    """The figures of `measure` as a Markdown page."""
    lines = [
        f"# {title}",
        "",
        f"Vocabulary {report['tokenizer']['vocabulary_size']:,}, model sha256 `{report['tokenizer']['sha256']}`.",
        f"Lossless: {report['lossless']:,} of {report['documents']:,} documents come back exactly as they were.",
        f"Encoding: {report['characters_per_second']:,} characters a second in one process. "
        f"{report['pieces_never_used']:,} pieces were never used.",
        "",
        f"Held out: {100 * report['held_out_fraction']:g} % of the documents, by a hash of their text; the vocabulary "
        "was not learned from them, though it may have seen other documents of the same article or work. Byte tokens "
        "are pieces `<0x..>` of characters that have no piece, of all tokens.",
        "",
        "| kind | documents | characters | characters per token | byte tokens | held out: documents | characters "
        "| characters per token | byte tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = report["kinds"]
    for name, row in kinds.items():
        whole = kinds[name.partition(VARIANT_OF)[0]]["all"]["documents"]
        fraction = row["all"]["documents"] / whole
        if VARIANT_OF not in name or STRAYS_FRACTION < fraction < 1 - STRAYS_FRACTION:
            lines.append(_line(name, row["all"], row["held_out"]))
    lines += ["", "## Pieces", "", "| sort | pieces | the first ones |", "|---|---|---|"]
    for name, (count, *pieces) in report["pieces"].items():
        shown = " ".join(f"`{_visible(piece)}`" for piece in pieces)
        lines.append(f"| {name} | {int(count):,} | {shown} |")
    return "\n".join([*lines, ""])


def write_report(folder: Path, report: Mapping[str, Any], name: str) -> None:
    """report.json with the figures of `measure`, and README.md for people; how the model was made comes from
    training.json beside them, where there is one. Raises StorageError."""
    write_json(folder / "report.json", report)
    made = folder / "training.json"
    text = render(report, f"Vocabulary {name}")
    if made.is_file():
        text += render_training(read_json(made))
    with whole_file(folder / "README.md", "w") as file:
        file.write(text)


def render_training(record: Mapping[str, Any]) -> str:
    """How the vocabulary was learned, as Markdown: the command and what it took of each source."""
    options = record["options"]
    given = [f"--sample {' '.join(repr(entry) for entry in options['sample'])}"] if options["sample"] else []
    given += [
        f"--{name.replace('_', '-')} {value}" for name, value in options.items() if name not in ("input", "sample")
    ]
    command = " \\\n    ".join(["python tokenizer/train.py --input documents/*.parquet --output FOLDER", *given])
    lines = ["", "## Training", "", "```", command, "```", ""]
    lines += [
        f"{record['single_characters']:,} single characters, {record['segments']['characters']:,} characters of text "
        f"with their weights, learned in {record['training_seconds']:g} s. Hashes of the input: training.json.",
        "",
        "| source | variant | converted to | weight | documents | characters | there were |",
        "|---|---|---|---|---|---|---|",
    ]
    for share in record["shares"]:
        lines.append(
            f"| {share['source']} | {share['variant']} | {share['converted_to']} | {share['weight']} "
            f"| {share['documents']:,} | {share['characters']:,} | {share['characters_found']:,} |"
        )
    return "\n".join([*lines, ""])


def read_groups(texts: Sequence[str]) -> dict[str, list[str]]:
    """`wiki=zhwiki+cmrc` as a name and its sources. Raises ConfigError."""
    groups = {}
    for text in texts:
        name, equals, sources = text.partition("=")
        if not (name and equals and sources):
            raise ConfigError(f"groups={text!r}: not NAME=SOURCE+SOURCE")
        groups[name] = sources.split("+")
    return groups


def _rows(total: Measured, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row for each group, each source, and each variant of a source that has several; then all together."""
    sources = sorted({source for source, _, _ in total.tallies})
    rows: dict[str, Any] = {}
    for name, members in groups.items():
        for member in members:
            if member not in sources:
                raise ConfigError(f"groups={name}: no source {member!r}{suggest(member, sources)}")
        rows[f"{name} (together)"] = _row(total, lambda source, _, members=members: source in members)
    for name in sources:
        rows[name] = _row(total, lambda source, _, name=name: source == name)
        variants = sorted({variant for source, variant, _ in total.tallies if source == name})
        for wanted in variants if len(variants) > 1 else ():
            if wanted:
                rows[f"{name}{VARIANT_OF}{wanted}"] = _row(
                    total, lambda source, variant, kind=(name, wanted): (source, variant) == kind
                )
    rows["all"] = _row(total, lambda source, variant: True)
    return rows


def _row(total: Measured, wanted: Any) -> dict[str, Any]:
    chosen = {kind: tally for kind, tally in total.tallies.items() if wanted(kind[0], kind[1])}
    held_out = [tally for (_, _, held), tally in chosen.items() if held]
    return {"all": _sum(chosen.values()).to_dict(), "held_out": _sum(held_out).to_dict()}


def _sum(tallies: Any) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _line(name: str, whole: Mapping[str, Any], held_out: Mapping[str, Any]) -> str:
    cells = [name]
    for part in (whole, held_out):
        cells += [f"{part['documents']:,}", f"{part['characters']:,}"]
        if part["tokens"]:
            cells += [f"{part['characters_per_token']:.3f}", f"{part['byte_token_percent']:.3f} %"]
        else:
            cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def _visible(piece: str) -> str:
    return piece.replace("\n", "\\n").replace(" ", "␣").replace("|", "\\|").replace("`", "'")


@cache
def _tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.load(model)


def _chunks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while chunk := list(islice(documents, CHUNK_DOCUMENTS)):
        yield chunk
