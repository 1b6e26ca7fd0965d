"""The tokenizer at run time: a sentencepiece model, its hash, and what training needs to know of its pieces.

In comes a `tokenizer.model` trained by tokenizer/train.py; out go ids and text. Ids never include `<s>` or `</s>`
unless the caller adds them, so that text which spells "<s>" stays text.
"""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
import sentencepiece

from megadec.common.errors import TokenizerError
from megadec.common.files import sha256_of

FILE_NAME = "tokenizer.model"

Kind = Literal["normal", "unknown", "control", "unused", "byte"]
SPECIAL_KINDS: tuple[Kind, ...] = ("byte", "unknown", "control", "unused")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the vocabulary: the text as sentencepiece writes it (a blank is U+2581), its score, what it is."""

    text: str
    score: float
    kind: Kind


class Tokenizer:
    """A loaded sentencepiece model. Make one with `Tokenizer.load`."""

    def __init__(self, path: Path, processor: sentencepiece.SentencePieceProcessor) -> None:
        self.path = path
        self._processor = processor
        self.sha256 = sha256_of(path)
        self.vocabulary_size: int = processor.vocab_size()
        self.unk_id: int = processor.unk_id()
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()

    def __reduce__(self) -> tuple[Callable[[Path], "Tokenizer"], tuple[Path]]:
        """Another process gets the path, and loads the model once."""
        return _load_once, (self.path,)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load a `tokenizer.model`, given as the file or as the folder that holds it.

        Raises TokenizerError when there is none, when it is not a sentencepiece model, or when it has no `<s>`, `</s>`.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise TokenizerError(f"{file} does not exist; a tokenizer is the file that tokenizer/train.py writes")
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"{file} ({file.stat().st_size} bytes) is not a sentencepiece model") from error
        tokenizer = cls(file, processor)
        if tokenizer.bos_id < 0 or tokenizer.eos_id < 0:
            raise TokenizerError(f"{file} has no <s> or no </s>; documents are stored between the two")
        probe = " a  b "
        back = tokenizer.decode(tokenizer.encode(probe))
        if back != probe:
            raise TokenizerError(
                f"{file} does not keep blanks: {probe!r} comes back as {back!r}; train it with add_dummy_prefix=false, "
                "remove_extra_whitespaces=false and text that holds blanks"
            )
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without `<s>` and `</s>`."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. One process, one thread: callers that want more run more processes."""
        ids: list[list[int]] = self._processor.encode(list(texts), num_threads=1)
        return ids

    def encode_with_dropout(self, texts: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
        """The ids of each text when it is cut between two characters with this probability, and no merge reaches over a
        cut: BPE-dropout (Provilkov et al., arXiv 1910.13267) with one draw a place instead of one a merge. The same
        arguments give the same ids in every process, which sentencepiece's own sampling does not: its random numbers
        are salted anew in each.
        """
        chance = np.random.default_rng(seed)
        parts: list[str] = []
        counts: list[int] = []
        for text in texts:
            cuts = np.flatnonzero(chance.random(max(len(text) - 1, 0)) < dropout) + 1
            own = [text[first:stop] for first, stop in pairwise([0, *cuts.tolist(), len(text)])]
            parts += own
            counts.append(len(own))
        encoded = iter(self.encode_many(parts))
        return [list(chain.from_iterable(islice(encoded, count))) for count in counts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; `<s>` and `</s>` give nothing, bytes that are no UTF-8 give U+FFFD."""
        text: str = self._processor.decode([int(i) for i in ids])
        return text

    def piece_bytes(self, piece_id: int) -> bytes:
        """The UTF-8 bytes that one id stands for: part of a character for a byte piece, nothing for `<s>`."""
        if self._processor.is_byte(piece_id):
            return bytes([int(self._processor.id_to_piece(piece_id)[3:-1], 16)])
        if self._processor.is_control(piece_id) or self._processor.is_unknown(piece_id):
            return b""
        # sentencepiece writes a blank as U+2581; our models never escape a real U+2581 apart from it.
        return self._processor.id_to_piece(piece_id).replace("\u2581", " ").encode("utf-8")

    @cached_property
    def pieces(self) -> list[bytes]:
        """`piece_bytes` of every id."""
        return [self.piece_bytes(i) for i in range(self.vocabulary_size)]

    def entry(self, piece_id: int) -> Entry:
        """One row of the vocabulary, for formats that hold their own copy of it."""
        processor = self._processor
        kinds = (kind for kind in SPECIAL_KINDS if getattr(processor, f"is_{kind}")(piece_id))
        return Entry(processor.id_to_piece(piece_id), processor.get_score(piece_id), next(kinds, "normal"))

    @cached_property
    def characters_per_id(self) -> np.ndarray:
        """int64 [vocabulary_size]: characters that begin in each piece; over a text's ids they sum to its length.

        A byte piece counts 1 where it is a UTF-8 leading byte and 0 where it continues a character.
        """
        counts = [sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces]
        return np.asarray(counts, dtype=np.int64)

    @cached_property
    def is_byte(self) -> np.ndarray:
        """bool [vocabulary_size]: whether the id is one of the 256 byte pieces."""
        return np.asarray([self._processor.is_byte(i) for i in range(self.vocabulary_size)], dtype=bool)

    def stream(self) -> "TextStream":
        """A decoder that takes ids one at a time and gives whole characters only."""
        return TextStream(self)


@cache
def _load_once(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


class TextStream:
    """Turns ids into text one by one, holding back bytes until they are whole UTF-8 characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pieces = tokenizer.pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, piece_id: int) -> str:
        """The text that became whole with this id; often empty inside a character made of byte pieces."""
        return self._decoder.decode(self._pieces[piece_id])

    def flush(self) -> str:
        """What is left at the end: an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
