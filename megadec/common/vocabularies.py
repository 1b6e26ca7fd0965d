"""The vocabularies that megadec reads, behind one protocol: sentencepiece's tokenizer.model, and BPE in tokenizer.json.

A vocabulary knows nothing of added tokens and templates: text in, ids out, every letter of it text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import sentencepiece

from megadec.common.errors import TokenizerError, needs_extra
from megadec.common.tokenizer_files import steps_of

Kind = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# The only Metaspace that keeps a text as it is.
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never"}
# What sentencepiece says of a piece that is not a normal one.
SPECIAL_KINDS: tuple[Kind, ...] = ("byte", "unknown", "control", "unused")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the vocabulary: the text as its file writes it, its score, what it is."""

    text: str
    score: float
    kind: Kind


class Vocabulary(Protocol):
    """Text -> ids and back."""

    size: int
    bos_id: int  # -1 where the vocabulary names none, as with the two below
    eos_id: int
    unk_id: int

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, int32."""

    def normalize(self, text: str) -> str:
        """The text of which the ids are made."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control pieces give nothing, bytes that are no UTF-8 give U+FFFD."""

    def piece_bytes(self, piece_id: int) -> bytes:
        """The UTF-8 bytes of an id, part of a character where it is a byte; nothing for a control piece."""

    def entry(self, piece_id: int) -> Entry:
        """A row of the vocabulary."""

    def id_of(self, text: str) -> int | None:
        """The id of the piece that its file writes so."""


class SentencePieces:
    """A `tokenizer.model`."""

    def __init__(self, file: Path) -> None:
        """Raises TokenizerError for what is no sentencepiece model."""
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"{file} ({file.stat().st_size} bytes) is not a sentencepiece model") from error
        self.size: int = self._processor.vocab_size()
        self.unk_id: int = self._processor.unk_id()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, in this thread."""
        ids: list[list[int]] = self._processor.encode(list(texts), num_threads=1)
        return ids

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, in this thread; a fifth faster than as lists."""
        ids: list[np.ndarray] = self._processor.encode(list(texts), num_threads=1, return_type="numpy")
        return ids

    def normalize(self, text: str) -> str:
        """The text itself: our models are trained without a normalizer, which `Tokenizer.load` checks on blanks."""
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        text: str = self._processor.decode(list(ids))
        return text

    def piece_bytes(self, piece_id: int) -> bytes:
        """The bytes of an id."""
        if self._processor.is_byte(piece_id):
            return bytes([int(self._processor.id_to_piece(piece_id)[3:-1], 16)])
        if self._processor.is_control(piece_id) or self._processor.is_unknown(piece_id):
            return b""
        # sentencepiece writes a blank as U+2581; our models never escape a real U+2581 apart from it.
        return self._processor.id_to_piece(piece_id).replace("\u2581", " ").encode("utf-8")

    def entry(self, piece_id: int) -> Entry:
        """A row; sentencepiece writes a blank as U+2581."""
        return self._entries[piece_id]

    @cached_property
    def _entries(self) -> list[Entry]:
        """All rows: one call of sentencepiece for a column, not one for a cell."""
        processor, ids = self._processor, list(range(self.size))
        kinds: list[Kind] = ["normal"] * self.size
        for kind in reversed(SPECIAL_KINDS):  # the first that holds counts
            for number in compress(ids, getattr(processor, f"is_{kind}")(ids)):
                kinds[number] = kind
        return list(map(Entry, processor.id_to_piece(ids), processor.get_score(ids), kinds))

    def id_of(self, text: str) -> int | None:
        """The id of a piece."""
        found: int = self._processor.piece_to_id(text)
        return found if self._processor.id_to_piece(found) == text else None

    def check_same(self, content: Mapping[str, Any], file: Path) -> None:
        """Raise TokenizerError unless the tokenizer.json beside this model, `file`, has its pieces at the same ids."""
        model = content.get("model")
        vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
        if not isinstance(vocabulary, Mapping):
            raise TokenizerError(f"{file}: model.vocab is not that of the tokenizer.model beside it")
        for number in range(self.size):
            text = self._processor.id_to_piece(number)
            if (found := vocabulary.get(text)) != number:
                raise TokenizerError(
                    f"{file}: piece {text!r} has id {found}; in the tokenizer.model beside it {number}"
                )


class JsonPieces:
    """The BPE of a `tokenizer.json`, through the library `tokenizers`: byte-level, as Qwen and Llama 3 have it, or
    sentencepiece's with bytes for rare characters, as transformers saves it without its tokenizer.model.

    merges: in the file's words. pre_tokenizer, normalizer: as the file has them. byte_level: which of the two it is.
    """

    bos_id = eos_id = unk_id = -1

    def __init__(self, file: Path, content: Mapping[str, Any]) -> None:
        """Raises TokenizerError for another kind of tokenizer, MissingExtraError without the library."""
        model = content.get("model")
        model = model if isinstance(model, Mapping) else {}
        steps = steps_of(content.get("pre_tokenizer"), "pretokenizers")
        self.byte_level = "ByteLevel" in [step.get("type") for step in steps] and not model.get("byte_fallback")
        self.normalizer: Mapping[str, Any] | None = content.get("normalizer")
        as_sentencepiece = steps == [{**METASPACE, "split": steps[0].get("split")}] if steps else False
        if model.get("type") != "BPE" or not (
            self.byte_level or (as_sentencepiece and model.get("byte_fallback") and self.normalizer is None)
        ):
            raise TokenizerError(
                f"{file}: model.type={model.get('type')!r}, normalizer={self.normalizer!r}, pre_tokenizer={steps!r}; "
                "megadec reads byte-level BPE, and BPE with byte_fallback behind a Metaspace that prepends nothing"
            )
        with needs_extra("tokenizers", "export"):
            import tokenizers
        plain = {**content, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(plain))
        except Exception as error:  # the library raises bare Exceptions
            raise TokenizerError(f"{file} is not a whole tokenizer.json: {error}") from error
        self.pre_tokenizer: Mapping[str, Any] = content["pre_tokenizer"]
        self.merges = [one if isinstance(one, str) else " ".join(one) for one in model.get("merges") or ()]
        self._ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=False)
        self._texts = {number: text for text, number in self._ids.items()}
        self.size = max(self._texts, default=-1) + 1
        if len(self._texts) != self.size:
            raise TokenizerError(f"{file}: model.vocab has {len(self._texts)} pieces with ids up to {self.size - 1}")

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, in this thread."""
        return [list(self._tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, in this thread."""
        return [np.array(ids, dtype=np.int32) for ids in self.encode_many(texts)]

    def normalize(self, text: str) -> str:
        """The text after the normalizer of tokenizer.json."""
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; of bytes that are no UTF-8, each is U+FFFD where the library's decoder has it so."""
        if self.byte_level:
            return b"".join(map(self.piece_bytes, ids)).decode("utf-8", "replace")
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def piece_bytes(self, piece_id: int) -> bytes:
        """The bytes of an id; a byte-level piece that holds other letters than those of bytes stands for itself."""
        text = self._texts[piece_id]
        if self.byte_level and all(letter in BYTE_OF_LETTER for letter in text):
            return bytes(map(BYTE_OF_LETTER.__getitem__, text))
        if not self.byte_level and (found := BYTE_PIECE.fullmatch(text)):
            return bytes([int(found[1], 16)])
        return (text if self.byte_level else text.replace("\u2581", " ")).encode("utf-8")

    def entry(self, piece_id: int) -> Entry:
        """A row; its text has a letter for each byte, or U+2581 for a blank. Of two merges the earlier wins."""
        text = self._texts[piece_id]
        if not self.byte_level and BYTE_PIECE.fullmatch(text):
            return Entry(text, 0.0, "byte")
        return Entry(text, 0.0 if self.byte_level else -float(piece_id), "normal")

    def id_of(self, text: str) -> int | None:
        """The id of a piece."""
        return self._ids.get(text)


def _letters() -> dict[str, int]:
    """Byte-level BPE's letter of each byte: those that can be printed are themselves, the others follow U+0100."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_OF_LETTER = _letters()
