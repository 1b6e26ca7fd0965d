"""The tokenizer at run time: a vocabulary, the tokens added to it, its hash, and what training needs of its pieces.

In comes a `tokenizer.model` trained by tokenizer/train.py, or the folder of a model made elsewhere; out go ids and
text. Ids never include `<s>` or `</s>` unless the caller adds them, so that text which spells "<s>" stays text:
special tokens are matched in a chat template only (`encode_template`), tokens added as ordinary ones in every text.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain, groupby, islice, pairwise
from pathlib import Path
from typing import Self

import numpy as np

from megadec.common.errors import TokenizerError
from megadec.common.tokenizer_files import (
    COPIED_FILES,
    GENERATION_FILE,
    JSON_FILE,
    MODEL_FILE,
    AddedToken,
    Companions,
    content_sha256,
    read_companions,
    vocabulary_file,
)
from megadec.common.vocabularies import Entry, JsonPieces, SentencePieces, Vocabulary

FILE_NAME = MODEL_FILE
# Below that of every piece, as transformers' converters have it.
ADDED_SCORE = -1000.0
# What a tokenizer_config.json of our own exports may say, which is made anew from the tokenizer.model.
OWN_KEYS = {"tokenizer_class", "unk_token", "bos_token", "eos_token", "add_bos_token", "add_eos_token", "legacy"}
OWN_KEYS |= {"add_prefix_space", "clean_up_tokenization_spaces", "model_max_length", "split_special_tokens"}


class Tokenizer:
    """A loaded vocabulary and what stands beside it. Make one with `Tokenizer.load`.

    bos_id, eos_id: what a document is stored between. end_ids: what ends an answer; `eos_id` is one of them. unk_id:
    -1 where there is none. prefix_ids: what stands in front of a prompt, `<s>` or nothing. special_ids: what a template
    can write, text -> id. names: such as `bos_token` -> text. templates: chat templates, the usual one under `default`.
    generation: of generation_config.json.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, companions: Companions) -> None:
        self.path = path
        self.vocabulary = vocabulary
        self.sha256 = content_sha256(path, companions)
        own = {"unk_token": vocabulary.unk_id, "bos_token": vocabulary.bos_id, "eos_token": vocabulary.eos_id}
        self.names = {key: vocabulary.entry(one).text for key, one in own.items() if one >= 0} | dict(companions.names)
        self.templates = companions.templates
        self.generation = companions.generation
        self.added = _added_tokens(path, vocabulary, companions)
        self.vocabulary_size: int = max((vocabulary.size, *(one + 1 for one in self.added)))
        self.special_ids = {token.text: token.id for token in self.added.values() if token.special}
        self._matched = {token.text: token.id for token in self.added.values() if not token.special}
        self.unk_id = self._named("unk_token", vocabulary.unk_id)
        self.eos_id = self._named("eos_token", vocabulary.eos_id)
        self.end_ids = tuple(sorted({*companions.end_ids, self.eos_id} - {-1}))
        self.bos_id = self._named("bos_token", vocabulary.bos_id)
        says_bos = self.bos_id >= 0 and (companions.adds_bos is not False)
        self.prefix_ids: tuple[int, ...] = (self.bos_id,) if says_bos else ()
        if self.bos_id < 0:
            self.bos_id = self._opening_id(companions)
        self.is_plain = (
            path.suffix != ".json"
            and not companions.identity
            and not self.templates
            and companions.config.keys() <= OWN_KEYS
            and companions.names.keys() <= own.keys()
            and bool(self.prefix_ids)
            and self.end_ids == (self.eos_id,)
        )

    def __reduce__(self) -> tuple[Callable[[Path], "Tokenizer"], tuple[Path]]:
        """Another process gets the path, and loads the model once."""
        return _load_once, (self.path,)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load a `tokenizer.model` or `tokenizer.json` and what stands beside it, given as the file or its folder.

        Raises TokenizerError when there is none, when it is of another kind, when its files disagree or say what cannot
        be done here, or when no token opens or ends a document; MissingExtraError for a tokenizer.json without the
        library that reads it.
        """
        file = vocabulary_file(Path(path))
        if not file.is_file():
            raise TokenizerError(f"{file} does not exist; a tokenizer is the file that tokenizer/train.py writes")
        companions = read_companions(file)
        tokenizer = cls(file, _vocabulary(file, companions), companions)
        if tokenizer.bos_id < 0 or tokenizer.eos_id < 0:
            raise TokenizerError(
                f"{file} has no <s> or no </s> (bos_token, eos_token); documents are stored between the two"
            )
        if wrong := [one for one in tokenizer.end_ids if one >= tokenizer.vocabulary_size]:
            raise TokenizerError(
                f"{file.parent}: eos_token_id names {wrong[0]}; {tokenizer.vocabulary_size} tokens are known, and no "
                "file gives this one a text (added_tokens_decoder, added_tokens.json)"
            )
        probe = " a  b "
        back = tokenizer.decode(tokenizer.encode(probe))
        if back != probe:
            raise TokenizerError(
                f"{file} does not keep blanks: {probe!r} comes back as {back!r}; train it with add_dummy_prefix=false, "
                "remove_extra_whitespaces=false and text that holds blanks"
            )
        return tokenizer

    def _named(self, key: str, otherwise: int) -> int:
        """The id of a token that is named; `_added_tokens` has seen that it has one."""
        return self.special_ids[self.names[key]] if key in self.names else otherwise

    def _opening_id(self, companions: Companions) -> int:
        """What opens a document where no bos_token is named, as with Qwen; -1 where nothing can.

        Documents are found by it, so it is not the token that ends them: the bos_token_id of generation_config.json or
        config.json, else the padding, else the first special token.
        """
        stated = companions.bos_ids
        wanted = [*stated, self._named("pad_token", -1), *sorted(self.special_ids.values())]
        usable = (one for one in wanted if one in self.special_ids.values() and one != self.eos_id)
        return next(usable, -1)

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a text that is to be continued."""
        return [*self.prefix_ids, *self.encode(text)]

    def carried_files(self) -> dict[str, bytes]:
        """What goes into every folder that is made of a model with this tokenizer, by name.

        A model of ours alone where that says it all; else the files that stand beside it too, and a
        generation_config.json with all end tokens and what opens a document, for which no config.json is needed then.
        """
        if self.is_plain:
            return {MODEL_FILE: self.path.read_bytes()}
        folder = self.path.parent
        files = {name: (folder / name).read_bytes() for name in COPIED_FILES if (folder / name).is_file()}
        files[self.path.name] = self.path.read_bytes()
        generation = {"bos_token_id": self.bos_id, **self.generation, "eos_token_id": self.stated_end}
        return {**files, GENERATION_FILE: (json.dumps(generation, ensure_ascii=False, indent=2) + "\n").encode()}

    @property
    def stated_end(self) -> int | list[int]:
        """The end tokens as a config.json has them: an id, or a list where there are several."""
        return list(self.end_ids) if len(self.end_ids) > 1 else self.eos_id

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without `<s>` and `</s>`."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. One process, one thread: callers that want more run more processes."""
        if not self._matched:
            return self.vocabulary.encode_many(texts)
        cut = [self._matched_pattern.split(text) for text in texts]
        between = iter(self.vocabulary.encode_many([part for parts in cut for part in parts[::2]]))
        return [_joined(parts, self._matched, between) for parts in cut]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text as int32, which is faster for many."""
        if not self._matched:
            return self.vocabulary.encode_arrays(texts)
        return [np.array(ids, dtype=np.int32) for ids in self.encode_many(texts)]

    def normalize(self, text: str) -> str:
        """The text as the ids give it back: composed (NFC) where the tokenizer says so, as Qwen's, else itself."""
        return self.vocabulary.normalize(text)

    def encode_template(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are themselves, such as a rendered chat template."""
        parts = self.split_special(text)
        return _joined(parts, self.special_ids, iter(self.encode_many(parts[::2])))

    def split_special(self, text: str) -> list[str]:
        """The text cut at its special tokens: plain text, a special token, plain text, ..., plain text."""
        return self._special_pattern.split(text)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return _any_of(self.special_ids)

    @cached_property
    def _matched_pattern(self) -> re.Pattern[str]:
        return _any_of(self._matched)

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
        """The text of `ids`; special tokens give nothing, bytes that are no UTF-8 give U+FFFD."""
        ids = [int(i) for i in ids]
        if self.added.keys().isdisjoint(ids):
            return self.vocabulary.decode(ids)
        parts: list[str] = []
        for token, run in groupby(ids, key=self.added.get):
            if token is None:
                parts.append(self.vocabulary.decode(list(run)))
            elif not token.special:
                parts += [token.text for _ in run]
        return "".join(parts)

    def piece_bytes(self, piece_id: int) -> bytes:
        """The UTF-8 bytes that one id stands for: part of a character for a byte piece, nothing for `<s>`."""
        token = self.added.get(piece_id)
        if token is None:
            return self.vocabulary.piece_bytes(piece_id)
        return b"" if token.special else token.text.encode("utf-8")

    @cached_property
    def pieces(self) -> list[bytes]:
        """`piece_bytes` of every id."""
        return [self.piece_bytes(i) for i in range(self.vocabulary_size)]

    def entry(self, piece_id: int) -> Entry:
        """One row of the vocabulary, for formats that hold their own copy of it."""
        token = self.added.get(piece_id)
        own = self.vocabulary.entry(piece_id) if piece_id < self.vocabulary.size else None
        if token is None or (own is not None and own.kind != "normal"):
            assert own is not None, "ids have no gap"
            return own
        return Entry(token.text, own.score if own else ADDED_SCORE, "control" if token.special else "user_defined")

    @cached_property
    def characters_per_id(self) -> np.ndarray:
        """int64 [vocabulary_size]: characters that begin in each piece; over a text's ids they sum to its length.

        A byte piece counts 1 where it is a UTF-8 leading byte and 0 where it continues a character.
        """
        counts = [sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces]
        return np.asarray(counts, dtype=np.int64)

    @cached_property
    def is_byte(self) -> np.ndarray:
        """bool [vocabulary_size]: whether the id is one of the 256 byte pieces, or stands for one byte of several."""
        kinds = ((self.entry(i).kind, self.pieces[i]) for i in range(self.vocabulary_size))
        return np.asarray([kind == "byte" or (len(own) == 1 and own > b"\x7f") for kind, own in kinds], dtype=bool)

    def stream(self) -> "TextStream":
        """A decoder that takes ids one at a time and gives whole characters only."""
        return TextStream(self)


def _vocabulary(file: Path, companions: Companions) -> Vocabulary:
    if file.suffix == ".json":
        return JsonPieces(file, companions.content or {})
    vocabulary = SentencePieces(file)
    if companions.content is not None:
        vocabulary.check_same(companions.content, file.parent / JSON_FILE)
    return vocabulary


def _added_tokens(path: Path, vocabulary: Vocabulary, companions: Companions) -> dict[int, AddedToken]:
    """The added tokens and the vocabulary's own special ones by id. Raises TokenizerError for one without a place."""
    found = {token.text: token for token in companions.added}
    specials = [(key, text) for key, text in companions.names.items()]
    for key, text in [*specials, *(("extra_special_tokens", text) for text in companions.extra_special)]:
        known = vocabulary.id_of(text)
        if text not in found and known is None:
            raise TokenizerError(f"{path.parent}: {key} names {text!r}, which no file gives an id")
        found.setdefault(text, AddedToken(known or 0, text, special=True))
    for own in (vocabulary.unk_id, vocabulary.bos_id, vocabulary.eos_id):
        if own >= 0:
            text = vocabulary.entry(own).text
            found.setdefault(text, AddedToken(own, text, special=True))
    for token in found.values():
        known = vocabulary.id_of(token.text)
        if known not in (None, token.id) or (known is None and token.id < vocabulary.size):
            there = vocabulary.entry(token.id).text if token.id < vocabulary.size else None
            raise TokenizerError(
                f"{path.parent}: added token {token.text!r} has id {token.id}; in {path.name} it has {known}, and "
                f"{token.id} is {there!r}"
            )
    beyond = sorted(token.id for token in found.values() if token.id >= vocabulary.size)
    if beyond != list(range(vocabulary.size, vocabulary.size + len(beyond))):
        raise TokenizerError(
            f"{path.parent}: added tokens have the ids {beyond[:3]}...; they go on from {vocabulary.size} without a gap"
        )
    return {token.id: token for token in found.values()}


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of the texts, the longest where several begin at one place, as a group that `split` keeps."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})")


def _joined(parts: Sequence[str], known: Mapping[str, int], between: Iterator[list[int]]) -> list[int]:
    """The ids of a text that was cut at tokens of `known`, which are every second part; `between` has the others'."""
    ids = ([known[part]] if place % 2 else next(between) for place, part in enumerate(parts))
    return list(chain.from_iterable(ids))


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
