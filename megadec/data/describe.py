"""Data sets and windows in words, for a person at a terminal.

In: an open data set, a plan and the number of a window, or a stream and a step. Out: text. Documents are named by a
look into documents.json for each window, which is slow for many windows and costs nothing until somebody asks.
"""

from collections.abc import Sequence

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.dataset import DataSet
from megadec.data.stream import TrainStream
from megadec.data.windows import WindowPlan

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


def describe_step(
    stream: TrainStream, step: int, sequences: Sequence[int] = (), tokenizer: Tokenizer | None = None
) -> str:
    """The windows and documents of step `step` of a run, counted from 1; of these sequences only, where some are given.

    Rows are counted over all ranks: with R ranks the first global_batch_size / R are those of rank 0. Raises
    ConfigError for a sequence that the step does not have.
    """
    windows = stream.windows_of(step - 1)
    for sequence in sequences:
        if not 0 <= sequence < len(windows):
            raise ConfigError(f"sequence {sequence}: a step of this run has the sequences 0 to {len(windows) - 1}")
    first = stream.place_of(step - 1)
    stage = f", stage {stream.stage}" if stream.first_step else ""
    lines = [
        f"step {step}{stage}: places {first} to {first + len(windows) - 1} of the sequence, epoch"
        f" {first // stream.windows_per_epoch} of {stream.windows_per_epoch} sequences"
    ]
    for sequence in sequences or range(len(windows)):
        window = windows[sequence]
        lines.append(f"sequence {sequence}, {stream.sets[window.data_set][0].folder}")
        if stream.is_lost(window):
            lines.append(f"window {window.window}: padding, because it touches a damaged shard that is left out")
        else:
            lines.append(describe_window(stream.plan(window.data_set), window.window, tokenizer))
    return "\n".join(lines)


def describe_window(plan: WindowPlan, window: int, tokenizer: Tokenizer | None = None) -> str:
    """The documents of a window and its pieces; with a tokenizer, how the text of each piece begins."""
    lines = [f"window {window} of {plan.windows} (sequence of {plan.sequence_length} tokens)"]
    for span in plan.documents_of(window):
        last = span.first_token + span.tokens - 1
        lines.append(f"  document {span.id} ({span.source}): tokens {span.first_token} to {last} of the set")
    for first, predictions in plan.pieces(window):
        text = ""
        if tokenizer is not None:
            ids = plan.data.tokens_at(first, predictions + 1)[:SHOWN_CHARACTERS].tolist()
            text = ": " + " ".join(tokenizer.decode(ids)[:SHOWN_CHARACTERS].split())
        lines.append(f"  piece from token {first}, {predictions} predictions{text}")
    return "\n".join(lines)
