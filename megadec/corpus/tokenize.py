"""Documents to tokens, in processes: a document is `<s> tokens </s>`, and `<s>` stands nowhere else."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import tee
from typing import NamedTuple

import numpy as np

from megadec.common.errors import TokenizerError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.exact import digest_of_cleaned
from megadec.corpus.document import Document, full_text
from megadec.corpus.parallel import chunks_of, map_in_order

LARGEST_UINT16 = 65_535


class Encoded(NamedTuple):
    """A document as shards hold it. digest: that of its text, as hex; characters: of title and text."""

    id: str
    source: str
    licence: str
    characters: int
    digest: str
    tokens: np.ndarray


def token_dtype(vocabulary_size: int) -> str:
    """The stored type of a token: uint16, or uint32 for a vocabulary over 65,535."""
    return "uint16" if vocabulary_size <= LARGEST_UINT16 else "uint32"


def encode_documents(documents: Sequence[Document], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Tokens of each document as `<s> ... </s>`, views of one array. Raises TokenizerError when a text itself gives one
    of these.
    """
    if not documents:
        return []
    encoded = tokenizer.encode_arrays(list(map(full_text, documents)))
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    ends = np.cumsum(lengths + 2)
    starts = ends - lengths - 2
    inside = np.concatenate(encoded)
    for name, special in (("<s>", tokenizer.bos_id), ("</s>", tokenizer.eos_id)):
        if (found := np.flatnonzero(inside == special)).size:
            document = documents[int(np.searchsorted(np.cumsum(lengths), found[0], side="right"))]
            raise TokenizerError(
                f"{tokenizer.path}: document {document.id} encodes to {name}, which only marks boundaries"
            )
    tokens = np.empty(ends[-1], dtype=token_dtype(tokenizer.vocabulary_size))
    is_inside = np.ones(len(tokens), dtype=bool)
    is_inside[starts] = is_inside[ends - 1] = False
    tokens[is_inside], tokens[starts], tokens[ends - 1] = inside, tokenizer.bos_id, tokenizer.eos_id
    return [tokens[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def encode_in_order(
    documents: Iterable[Document], tokenizer: Tokenizer, workers: int
) -> Generator[Encoded, None, None]:
    """Each document with its tokens, in the order of the input."""
    chunks, sent = tee(chunks_of(documents))
    with closing(map_in_order(partial(encode_documents, tokenizer=tokenizer), sent, workers)) as encoded:
        for chunk, tokens in zip(chunks, encoded, strict=True):
            for document, array in zip(chunk, tokens, strict=True):
                text = full_text(document)
                digest = digest_of_cleaned(text).hex()
                yield Encoded(document.id, document.source, document.licence, len(text), digest, array)
