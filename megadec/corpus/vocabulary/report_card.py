"""The report card of a vocabulary: characters per token by source, and whether text comes back as it was.

Every document is encoded and decoded, a minute or two for a hundred million characters.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from megadec.common.errors import ConfigError, check_choice
from megadec.common.files import read_json, whole_file, write_json
from megadec.common.log import progress
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.clean.variant import TRADITIONAL, variant_of
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.vocabulary.fertility import fertility
from megadec.corpus.vocabulary.sample import Kind

Tallies = defaultdict[Kind, Counter[str]]
"""Counts of COUNTED by the kind of document."""
COUNTED = ("documents", "characters", "tokens", "byte_tokens", "lossless")
LOSSES_SHOWN = 10
PIECES_SHOWN = 16
LOST = {"documents": 1, "lossless": -1}
VARIANT_OF = ", "
# The page leaves out the variants of a source that are only strays, and the one that is all but those.
STRAYS_FRACTION = 0.02


def measure(
    model: Path, paths: Sequence[Path], held_out_fraction: float, workers: int, groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Encode and decode every document of the files; figures over all of it and over the held-out part alone.

    `groups` name several sources together. Raises TokenizerError, InputError, and ConfigError for an unknown source.
    """
    began = time.monotonic()
    tokenizer = Tokenizer.load(model)
    tallies: Tallies = defaultdict(Counter)
    uses = np.zeros(tokenizer.vocabulary_size, dtype=np.int64)
    lost: list[str] = []
    encode_seconds = 0.0
    chunks = chunks_of(progress(read_documents(paths), description="report", unit="doc"))
    measured = map_in_order(partial(measure_chunk, tokenizer, held_out_fraction), chunks, workers)
    for documents, uses_in_chunk, seconds in measured:
        for kind, name, tally in documents:
            tallies[kind].update(tally)
            lost += [] if tally["lossless"] else [name]
        uses += uses_in_chunk
        encode_seconds += seconds
    rows = rows_of(tallies, groups)
    everything = rows["all"]["all"]
    return {
        "fertility": fertility(tokenizer, paths, held_out_fraction),
        "tokenizer": {"sha256": tokenizer.sha256, "vocabulary_size": tokenizer.vocabulary_size},
        "held_out_fraction": held_out_fraction,
        "kinds": rows,
        "documents": everything["documents"],
        "lossless": everything["lossless"],
        "not_lossless": lost[:LOSSES_SHOWN],
        "pieces_never_used": int((uses == 0).sum()),
        "characters_per_second": round(everything["characters"] / max(encode_seconds, 1e-9)),
        "seconds": round(time.monotonic() - began, 1),
        "pieces": sample_pieces(tokenizer),
    }


def measure_chunk(
    tokenizer: Tokenizer, held_out_fraction: float, documents: list[Document]
) -> tuple[list[tuple[Kind, str, dict[str, int]]], np.ndarray, float]:
    """Kind, name and counts of each document; the uses of each piece; the seconds of encoding. Runs in any process."""
    texts = [full_text(document) for document in documents]
    began = time.monotonic()
    encoded = tokenizer.encode_many(texts)
    seconds = time.monotonic() - began
    measured = []
    for document, text, ids in zip(documents, texts, encoded, strict=True):
        kind = (document.source, document.variant, is_held_out(digest_of(text), held_out_fraction))
        measured.append((kind, f"{document.source}: {document.id}", tally_of(tokenizer, text, ids)))
    uses = np.bincount(list(chain.from_iterable(encoded)), minlength=tokenizer.vocabulary_size)
    return measured, uses, seconds


def tally_of(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> dict[str, int]:
    """What COUNTED names, of one document."""
    counts = (1, len(text), len(ids), int(tokenizer.is_byte[ids].sum()), int(tokenizer.decode(ids) == text))
    return dict(zip(COUNTED, counts, strict=True))


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
    ]
    kinds = report["kinds"]
    rows = [[name, *_cells(kinds[name]["all"]), *_cells(kinds[name]["held_out"])] for name in _shown_kinds(kinds)]
    figures = "documents | characters | characters per token | byte tokens"
    lines += [*_table(f"kind | {figures} | held out: {figures}", rows), "", "## Pieces", ""]
    pieces = [
        (name, int(count), " ".join(f"`{_visible(piece)}`" for piece in shown))
        for name, (count, *shown) in report["pieces"].items()
    ]
    lines += _table("sort | pieces | the first ones", pieces)
    return "\n".join([*lines, *_fertility_lines(report.get("fertility")), ""])


def _shown_kinds(kinds: Mapping[str, Any]) -> list[str]:
    """All but the variants of a source that are strays, and those that are all but strays."""
    documents = {name: row["all"]["documents"] for name, row in kinds.items()}
    fractions = {name: count / documents[name.partition(VARIANT_OF)[0]] for name, count in documents.items()}
    return [
        name
        for name, fraction in fractions.items()
        if VARIANT_OF not in name or STRAYS_FRACTION < fraction < 1 - STRAYS_FRACTION
    ]


def render_comparison(report: Mapping[str, Any]) -> str:
    """What `compare` found, as Markdown: characters per token on held-out text, a column for each vocabulary."""
    models = report["comparison"]
    possible = [model for model in models if "kinds" in model]
    lines = [
        "",
        "## Other sizes, and both ways to learn",
        "",
        "Characters per token on the same held-out text, each vocabulary learned from the same sample.",
        "",
    ]
    names = [f"{model['model']} {model['vocabulary_size']:,}" for model in possible]
    held = [name for name in _shown_kinds(report["kinds"]) if report["kinds"][name]["held_out"]["tokens"]]
    rows = [[name, *(f"{model['kinds'][name]['characters_per_token']:.3f}" for model in possible)] for name in held]
    for key in ("single_characters", "character_coverage", "training_seconds"):
        rows.append([key.replace("_", " "), *(f"{model[key]:g}" for model in possible)])
    lost = [sum(model["kinds"]["all"][key] * sign for key, sign in LOST.items()) for model in possible]
    rows.append(["documents that do not come back", *map(str, lost)])
    lines += _table(" | ".join(["kind", *names]), rows)
    for model in models:
        if "impossible" in model:
            lines += ["", f"{model['model']} {model['vocabulary_size']:,}: {model['impossible']}"]
    return "\n".join([*lines, ""])


def _fertility_lines(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    segmenter = found["segmenter"]
    head = f"Tokens per word, words as {segmenter['name']} {segmenter['version']} cuts them, each encoded by itself."
    sources = found["sources"].items()
    rows = [(name, one["words"], one["tokens"], f"{one['tokens_per_word']:.3f}") for name, one in sources]
    return ["", "## Fertility", "", head, "", *_table("source | words | tokens | tokens per word", rows)]


def write_report(folder: Path, report: Mapping[str, Any], name: str) -> None:
    """report.json with the figures of `measure`, and README.md for people; how the model was made comes from
    training.json beside them, where there is one. Raises StorageError."""
    write_json(folder / "report.json", report)
    made = folder / "training.json"
    text = render(report, f"Vocabulary {name}")
    if "comparison" in report:
        text += render_comparison(report)
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
    ]
    header = "source | variant | converted to | weight | documents | characters | there were"
    lines += _table(header, (share.values() for share in record["shares"]))
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


def rows_of(tallies: Mapping[Kind, Counter[str]], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row for each group, each source, and each variant of a source that has several; then all together."""
    sources = sorted({source for source, _, _ in tallies})
    rows: dict[str, Any] = {}
    for name, members in groups.items():
        for member in members:
            check_choice(f"groups={name}: source", member, sources)
        rows[f"{name} (together)"] = _row(tallies, members)
    for name in sources:
        rows[name] = _row(tallies, [name])
        variants = sorted({variant for source, variant, _ in tallies if source == name})
        for wanted in filter(None, variants if len(variants) > 1 else ()):
            rows[f"{name}{VARIANT_OF}{wanted}"] = _row(tallies, [name], wanted)
    rows["all"] = _row(tallies, sources)
    return rows


def _row(tallies: Mapping[Kind, Counter[str]], sources: Sequence[str], wanted: str | None = None) -> dict[str, Any]:
    whole, held_out = Counter[str](), Counter[str]()
    for (source, variant, held), tally in tallies.items():
        if source in sources and wanted in (None, variant):
            whole.update(tally)
            held_out.update(tally if held else {})
    return {"all": _figures(whole), "held_out": _figures(held_out)}


def _figures(tally: Counter[str]) -> dict[str, Any]:
    tokens = max(tally["tokens"], 1)
    return {
        **{name: tally[name] for name in COUNTED},
        "characters_per_token": round(tally["characters"] / tokens, 4),
        "byte_token_percent": round(100 * tally["byte_tokens"] / tokens, 4),
    }


def _table(header: str, rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a Markdown table; whole numbers are written with commas."""
    shown = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    return [f"| {header} |", "|" + "---|" * len(header.split("|")), *(f"| {' | '.join(cells)} |" for cells in shown)]


def _cells(part: Mapping[str, Any]) -> list[object]:
    fractions = [f"{part['characters_per_token']:.3f}", f"{part['byte_token_percent']:.3f} %"]
    return [part["documents"], part["characters"], *(fractions if part["tokens"] else ("", ""))]


def _visible(piece: str) -> str:
    return piece.replace("\n", "\\n").replace(" ", "␣").replace("|", "\\|").replace("`", "'")
