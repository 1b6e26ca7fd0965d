"""Data sets and windows in words, for a person at a terminal.

In: an open data set, or a plan and the number of a window. Out: text. Trade-off: documents are named by a look into
documents.json for each window, which is slow for many windows and costs nothing until somebody asks.
"""

from __future__ import annotations

from megadec.common.tokenizer import Tokenizer
from megadec.data.index import DataSet
from megadec.data.windows import WindowPlan, documents_of

SHOWN_CHARACTERS = 60


def describe_set(data: DataSet) -> str:
    """What the index says: totals, sources, drops by reason, shards."""
    index = data.index
    lines = [
        f"{data.folder}: {data.tokens:,} tokens, {data.documents:,} documents, {index['characters']:,} characters"
        f" in {data.blocks} blocks of {len(index['shards'])} shards",
        f"contents {data.sha256[:16]}, tokenizer {data.tokenizer_sha256[:16]} ({data.vocabulary_size:,} pieces,"
        f" {index['dtype']}), pipeline {index['pipeline_version']}",
        f"licences: {', '.join(index['licences']) or 'none given'}",
        f"{'documents':>12} {'tokens':>14} {'characters':>14} {'chars/token':>11}  source",
    ]
    for name, source in index["sources"].items():
        ratio = source["characters"] / source["tokens"]
        counts = f"{source['documents']:>12,} {source['tokens']:>14,} {source['characters']:>14,}"
        lines.append(f"{counts} {ratio:>11.2f}  {name}")
    for reason, dropped in index["report"].get("dropped", {}).items():
        lines.append(f"{dropped['documents']:>12,} {'':>14} {dropped['characters']:>14,} {'':>11}  dropped: {reason}")
    for shard in index["shards"]:
        lines.append(
            f"{shard['documents']:>12,} {shard['tokens']:>14,} {shard['bytes']:>14,} {'bytes':>11}  {shard['name']}"
            f" sha256 {shard['sha256'][:16]}"
        )
    return "\n".join(lines)


def describe_window(plan: WindowPlan, window: int, tokenizer: Tokenizer | None = None) -> str:
    """The documents of a window and its pieces; with a tokenizer, how the text of each piece begins."""
    lines = [f"window {window} of {plan.windows} (row of {plan.row_tokens} tokens)"]
    for span in documents_of(plan, window):
        last = span.first_token + span.tokens - 1
        lines.append(f"  document {span.id} ({span.source}): tokens {span.first_token} to {last} of the set")
    for first, predictions in plan.pieces(window):
        text = ""
        if tokenizer is not None:
            ids = plan.data.tokens_at(first, predictions + 1)[:SHOWN_CHARACTERS].tolist()
            text = ": " + " ".join(tokenizer.decode(ids)[:SHOWN_CHARACTERS].split())
        lines.append(f"  piece from token {first}, {predictions} predictions{text}")
    return "\n".join(lines)
