"""Proof that we read a Hugging Face folder of other tools as its own runtime does, before anything is made of it.

An export is compared with our reading of its source, so a source that was read wrong would give an export that is wrong
and passes. transformers computes what such a folder means; our decoder must give the same logits.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.log import logger
from megadec.common.ranks import is_first
from megadec.common.tokenizer import Tokenizer
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.runs.common import CommonRun
from megadec.export.huggingface.export import compare_with_transformers, load_both, load_transformers
from megadec.export.parity.compare import LOGIT_TOLERANCE, Ids, check_logits, prompt_ids
from megadec.export.read.source import ModelSource, check_vocabulary

# The fixed prompts stand one behind the other in rows of so many tokens, or of the context where that is less: what is
# done to far positions shows there, and a few long rows are faster than many short ones.
LONGEST_TOKENS = 1024

log = logger(__name__)


def proven(source: ModelSource) -> ModelSource:
    """The source itself, or of a foreign folder the source with the proof that transformers computes the same.

    Holds the model once in float32 meanwhile. Raises ExportError when logits, or ids of texts and chats, differ or
    transformers cannot load the folder, MissingExtraError without transformers.
    """
    if not source.foreign:
        return source
    version = load_transformers().__version__
    log.info("comparing %s with transformers %s, its own runtime", source.path, version)
    tokenizer = Tokenizer.load(source.tokenizer_path)
    check_vocabulary(source, tokenizer)
    try:
        _, texts = compare_with_transformers(tokenizer, source.path, chats=source.classes is None)
        model, decoder = load_both(source.path, source, None)
    except ExportError:
        raise
    except Exception as error:  # what transformers raises for a folder that it cannot read has no common base
        raise ExportError(f"{source.path}: transformers cannot load it: {error}") from error
    ids = [one for prompt in prompt_ids(tokenizer, LONGEST_TOKENS) for one in prompt]
    tokens = min(source.shape.max_position_embeddings, LONGEST_TOKENS)
    rows = [ids[start : start + tokens] for start in range(0, len(ids), tokens)]
    ours = decoder if source.classes is None else partial(decoder, last_only=True)

    def theirs(ids: Ids) -> Tensor:
        """[S, V], or of a classifier [1, L]."""
        logits: Tensor = model(torch.tensor([ids])).logits
        return logits[0] if source.classes is None else logits

    try:
        with torch.inference_mode():
            difference = max(check_logits(ids, ours(torch.tensor([ids]))[0].float(), theirs(ids)) for ids in rows)
    except ExportError as error:
        raise ExportError(f"{source.path}: megadec does not compute what transformers does: {error}") from error
    log.info("%s is read as it is meant: largest logit difference %.1e", source.path, difference)
    proof = {"runtime": f"transformers {version}", "tokens": len(ids), "texts": texts, "tolerance": LOGIT_TOLERANCE}
    return replace(source, proof={**proof, "largest_logit_difference": difference})


def prove_before_training(source: ModelSource, run: CommonRun) -> None:
    """`proven` before a run begins from the source's weights, on rank 0; a run that goes on has begun already."""
    if is_first() and not checkpoints_in(run.checkpoints):
        proven(source)
