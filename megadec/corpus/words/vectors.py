"""Word vectors: gensim's Word2Vec over the documents of a data set, in the format that word2vec and others read.

The one door to gensim. Documents are cut into words once, into a temporary file beside the output, and every epoch
streams from it: memory is that of the vocabulary. One thread and one seed give the same vectors, bit by bit.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megadec import __version__
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, InputError, check_range, needs_extra
from megadec.common.files import sha256_of, whole_folder, write_json
from megadec.common.log import logger, progress
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.words.segment import EXTRA, SegmentOptions, is_word, read_lines

log = logger(__name__)

VECTORS_FILE = {"text": "vectors.txt", "binary": "vectors.bin"}
NEIGHBORS_SHOWN, WORDS_SHOWN = 8, 30
# Words of a frequent one letter say little of the vectors.
SHOWN_CHARACTERS = 2
# gensim cuts longer sentences off without a word.
LONGEST_SENTENCE_WORDS = 10_000
NEIGHBORS_AT_A_TIME = 256


@dataclass(frozen=True, kw_only=True)
class WordVectorOptions(SegmentOptions):
    """Word vectors of documents (Word2Vec, arXiv 1301.3781 and 1310.4546).

    Attributes:
        input: files of documents (.parquet), as tools/prepare.py --documents writes them.
        output: folder for the vectors and report.json; new.
        format: `text` or `binary`, both as word2vec has them and gensim's load_word2vec_format reads.
        size: numbers of a vector.
        window: words on either side that a word is learned from.
        min_count: rarer words have no vector.
        skip_gram: a word predicts its neighbors; else (CBOW) they predict it.
        negative: noise words drawn for each.
        sample: frequent words are left out at this rate.
        epochs: passes over the text.
        seed: of the first values and of all draws.
        threads: that train; more than one is faster and no longer the same from run to run.
        workers: processes that cut texts into words.
        max_words: words that are counted at a time; with more, rare ones are forgotten on the way, which bounds memory.
        analogies: a file of lines `A B C D` (A is to B as C to D) to measure.
    """

    input: tuple[Path, ...]
    output: Path
    format: Literal["text", "binary"] = "text"
    size: int = 100
    window: int = 5
    min_count: int = 5
    skip_gram: bool = True
    negative: int = 10
    sample: float = 1e-3
    epochs: int = 5
    seed: int = 0
    threads: int = 1
    workers: int = 1
    max_words: int = 10_000_000
    analogies: Path | None = None

    def __post_init__(self) -> None:
        if not self.input:
            raise ConfigError("input: no file was given")
        check_range(self, "", "size", "window", "min_count", "negative", "epochs", "threads", "workers", least=1)
        check_range(self, "", "max_words", least=1000)
        check_range(self, "", "seed", "sample", least=0)


class Sentences:
    """Lines of a file, words with blanks between them, read anew in each pass."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[list[str]]:
        with open(self._path, encoding="utf-8") as stream:
            for line in stream:
                words = line.split()
                for first in range(0, len(words), LONGEST_SENTENCE_WORDS):
                    yield words[first : first + LONGEST_SENTENCE_WORDS]


def train_vectors(options: WordVectorOptions) -> dict[str, Any]:
    """Write the folder `options.output`; returns the report.

    Raises ConfigError for a folder that exists, InputError for documents that cannot be read or hold too few words,
    MissingExtraError.
    """
    analogies = read_analogies(options.analogies) if options.analogies else []
    segmenter, gensim_version = options.segmenter_described(), _gensim_version()
    with whole_folder(options.output) as folder:
        sentences = folder / "sentences.txt"
        counts = write_sentences(options, sentences)
        began = time.monotonic()
        vectors = _learn(options, Sentences(sentences))
        sentences.unlink()
        name = VECTORS_FILE[options.format]
        vectors.save_word2vec_format(str(folder / name), binary=options.format == "binary")
        report = {
            "made_by": {"megadec": __version__, "gensim": gensim_version, "segmenter": segmenter},
            "options": to_dict(options),
            "vectors": {"file": name, "sha256": sha256_of(folder / name)},
            **counts,
            "vocabulary": len(vectors),
            "words_with_a_vector": sum(int(vectors.get_vecattr(word, "count")) for word in vectors.index_to_key),
            "training_seconds": round(time.monotonic() - began, 1),
            "nearest": nearest_of_frequent(vectors),
            **({"analogies": score_analogies(vectors, analogies)} if analogies else {}),
        }
        write_json(folder / "report.json", report)
    return report


def _learn(options: WordVectorOptions, sentences: Sentences) -> Any:
    """gensim's KeyedVectors of the sentences. Raises InputError where fewer than two words are frequent enough."""
    from gensim.models import Word2Vec

    model = Word2Vec(
        vector_size=options.size,
        window=options.window,
        min_count=options.min_count,
        sg=int(options.skip_gram),
        negative=options.negative,
        sample=options.sample,
        max_vocab_size=options.max_words,
        seed=options.seed,
        workers=options.threads,
    )
    model.build_vocab(sentences)
    if len(model.wv) < 2:
        raise InputError(
            f"{', '.join(map(str, options.input))}: {len(model.wv)} words stand there {options.min_count} times or"
            f" more; give more text, or a lower min_count={options.min_count}"
        )
    log.info("%s words have a vector", f"{len(model.wv):,}")
    model.train(sentences, total_examples=model.corpus_count, epochs=options.epochs)
    return model.wv


def write_sentences(options: WordVectorOptions, path: Path) -> dict[str, int]:
    """The words of each line of each document, a line each; returns how many documents, sentences and words."""
    documents = progress(read_documents(options.input), description="cut into words", unit="doc")
    counts = {"documents": 0, "sentences": 0, "words": 0}
    with open(path, "w", encoding="utf-8") as stream:
        for number, lines in map_in_order(
            partial(_sentences_of, options.segment), chunks_of(documents), options.workers
        ):
            counts["documents"] += number
            counts["sentences"] += len(lines)
            counts["words"] += sum(map(len, lines))
            stream.writelines(" ".join(words) + "\n" for words in lines)
    return counts


def _sentences_of(segment: SegmentOptions, documents: Sequence[Document]) -> tuple[int, list[list[str]]]:
    """How many documents, and the words of each of their lines; in any process."""
    cut = segment.open_segmenter().cut
    lines = [line for document in documents for line in full_text(document).splitlines()]
    words = ([word for word in cut(line) if is_word(word)] for line in lines)
    return len(documents), [some for some in words if some]


class WordVectors:
    """Words and their vectors from a file in word2vec's format. words: in the file's order, the most frequent first.

    unit: float32 [words, size], of length 1.
    """

    def __init__(self, words: Sequence[str], unit: np.ndarray) -> None:
        self.words = list(words)
        self.unit = unit
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def nearest(self, words: Iterable[str], most: int, least_similarity: float = -1.0) -> dict[str, list[str]]:
        """For each of the words that has a vector, the `most` nearest others by cosine, the nearest first, without
        those below `least_similarity`. A word that has no vector is not in the result."""
        known = sorted({self.numbers[word] for word in words if word in self.numbers})
        most = min(most, len(self.words) - 1)
        found: dict[str, list[str]] = {}
        for first in range(0, len(known), NEIGHBORS_AT_A_TIME):
            some = known[first : first + NEIGHBORS_AT_A_TIME]
            similarity = self.unit[some] @ self.unit.T
            similarity[np.arange(len(some)), some] = -np.inf
            largest = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
            for number, row, columns in zip(some, similarity, largest, strict=True):
                near = sorted((-row[other], other) for other in columns if row[other] >= least_similarity)
                found[self.words[number]] = [self.words[other] for _, other in near]
        return found


def read_vectors(path: Path) -> WordVectors:
    """The vectors of a file in word2vec's format (`.bin` is binary, else text), or of a folder that this module wrote.

    Raises InputError for a file that is missing, of another form, or without two words; MissingExtraError.
    """
    with needs_extra("gensim", EXTRA):
        from gensim.models import KeyedVectors
    if path.is_dir():
        there = [path / name for name in VECTORS_FILE.values() if (path / name).is_file()]
        if not there:
            raise InputError(f"{path}: no {' or '.join(VECTORS_FILE.values())} in this folder")
        path = there[0]
    try:
        vectors = KeyedVectors.load_word2vec_format(str(path), binary=path.suffix == ".bin")
    except (OSError, ValueError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a whole file of word vectors in word2vec's format: {error}") from error
    if len(vectors) < 2 or not np.isfinite(vectors.vectors).all():
        raise InputError(f"{path} holds {len(vectors)} vectors, at least two of finite numbers are needed")
    return WordVectors(vectors.index_to_key, vectors.get_normed_vectors())


def read_analogies(path: Path) -> list[tuple[str, str, str, str]]:
    """Lines of four words. Raises InputError naming the line that has not four."""
    found = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if words and len(words) != 4:
            raise InputError(f"{path}: line {number}: {line[:60]!r} has {len(words)} words; a line is `A B C D`")
        if words:
            found.append((words[0], words[1], words[2], words[3]))
    return found


def score_analogies(vectors: Any, analogies: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    """How many have four words with vectors, and of those in how many D is the word nearest to B - A + C."""
    known = [four for four in analogies if all(word in vectors for word in four)]
    right = sum(vectors.most_similar(positive=[b, c], negative=[a], topn=1)[0][0] == d for a, b, c, d in known)
    return {"asked": len(analogies), "known": len(known), "right": right}


def nearest_of_frequent(vectors: Any) -> dict[str, list[str]]:
    """The nearest words of the most frequent words of two or more characters."""
    shown = [word for word in vectors.index_to_key if len(word) >= SHOWN_CHARACTERS][:WORDS_SHOWN]
    return {word: [near for near, _ in vectors.most_similar(word, topn=NEIGHBORS_SHOWN)] for word in shown}


def _gensim_version() -> str:
    """Raises MissingExtraError where gensim is not installed, before any text is read."""
    with needs_extra("gensim", EXTRA):
        import gensim
    return str(gensim.__version__)


def main(argv: Sequence[str]) -> None:
    """Train what the command line asks for; counts and nearest words on standard output, as JSON."""
    report = train_vectors(parse(WordVectorOptions, argv, description="Train word vectors on documents."))
    shown = ("documents", "words", "vocabulary", "training_seconds", "nearest", "analogies")
    print(json.dumps({key: report[key] for key in shown if key in report}, ensure_ascii=False, indent=1))
