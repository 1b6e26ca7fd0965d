"""Cuts a text into words with jieba, or with rjieba, the same method in Rust, where it is installed.

The one door to both. They agree but for Latin letters with dots (`U.S`, addresses), which jieba cuts and rjieba keeps:
98.8 % of the words of news and titles. rjieba is 17 times as fast.
"""

import logging
import re
import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from megadec.common.errors import InputError, needs_extra

EXTRA = "words"
# Letters and digits; the planes of rare Han characters are newer than the tables of some Python versions.
_WORD = re.compile(r"[^\W_]|[\U00020000-\U0003ffff]")
_HYPHEN = re.compile("(-)")
_USER_WORD = re.compile(r"(?P<word>.+?)(?: +(?P<count>\d+))?(?: +(?P<tag>[A-Za-z]+))?")


@dataclass(frozen=True)
class SegmentOptions:
    """How texts are cut into words.

    Attributes:
        segmenter: `jieba`, `rjieba` (the same method, faster), or `auto`: rjieba where it is installed.
        user_dict: further words, one a line in jieba's form: `WORD [COUNT] [TAG]`; without a count a word counts often
            enough to be kept whole.
    """

    segmenter: Literal["auto", "jieba", "rjieba"] = "auto"
    user_dict: Path | None = None

    @property
    def segment(self) -> "SegmentOptions":
        """These options without those of a class that has more."""
        return SegmentOptions(self.segmenter, self.user_dict)

    @cached_property
    def chosen(self) -> Literal["jieba", "rjieba"]:
        """The engine that `auto` stands for here. Raises MissingExtraError for one that is not installed."""
        if self.segmenter == "jieba" or (self.segmenter == "auto" and find_spec("rjieba") is None):
            with needs_extra("jieba", EXTRA):
                _import_jieba()
            return "jieba"
        with needs_extra("rjieba", EXTRA):
            import rjieba  # noqa: F401
        return "rjieba"

    def segmenter_described(self) -> dict[str, str]:
        """What cuts, for reports: another segmenter or version gives other words."""
        return {"name": self.chosen, "version": version(self.chosen), "user_dict": str(self.user_dict or "")}

    def open_segmenter(self) -> "Segmenter":
        """The segmenter; loaded once in a process. Raises InputError for a wrong line of `user_dict`."""
        return _opened(self.chosen, self.user_dict)


class Segmenter:
    """Cuts texts; joined, the words of a text are the text. Make one with `SegmentOptions.open_segmenter`."""

    def __init__(self, name: Literal["jieba", "rjieba"], user_words: list[tuple[str, int | None]]) -> None:
        self._is_jieba = name == "jieba"
        self._cutter = _jieba() if self._is_jieba else _rjieba()
        for word, count in user_words:
            self._cutter.add_word(word, count, None)

    def cut(self, text: str) -> list[str]:
        """The words, with punctuation and blanks between them."""
        words: list[str]
        if self._is_jieba:
            words = self._cutter.lcut(text)
            return words
        # jieba cuts `3-5` at its hyphen.
        words = self._cutter.cut(text)
        if "-" not in text:
            return words
        return [part for word in words for part in _HYPHEN.split(word) if part]


def is_word(word: str) -> bool:
    """Whether it holds a letter or a digit of any script, and is no punctuation."""
    return _WORD.search(word) is not None


def read_user_dict(path: Path) -> list[tuple[str, int | None]]:
    """Words and their counts (None: none given). Raises InputError naming the line that is not `WORD [COUNT] [TAG]`."""
    words: list[tuple[str, int | None]] = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            match = _USER_WORD.fullmatch(line.strip())
            assert match is not None, "the first group takes any text"
            if match["count"] is None and re.search(r" \S*\d", line.strip()):
                raise InputError(f"{path}: line {number}: {line.strip()[:40]!r} is not WORD [COUNT] [TAG]")
            words.append((match["word"], int(match["count"]) if match["count"] else None))
    if not words:
        raise InputError(f"{path}: holds no word; a line is WORD [COUNT] [TAG]")
    return words


def read_lines(path: Path) -> list[str]:
    """The lines of a small UTF-8 file. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error


@cache
def _opened(name: Literal["jieba", "rjieba"], user_dict: Path | None) -> Segmenter:
    return Segmenter(name, read_user_dict(user_dict) if user_dict else [])


def _import_jieba() -> Any:
    with warnings.catch_warnings():
        # Old escapes in its source, and pkg_resources where setuptools still has it.
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)
    return jieba


def _jieba() -> Any:
    jieba = _import_jieba()
    cutter = jieba.Tokenizer()
    # What initialize() does, without its cache in the shared temporary folder.
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter


def _rjieba() -> Any:
    import rjieba

    return rjieba.Jieba()
