"""The one tree of exceptions, and the one place where an exception becomes an exit status.

    MegadecError
    ├── ConfigError        2  a key, a value or a command line is wrong
    ├── InputError         2  a raw source file is missing, cut, or in another encoding
    ├── TokenizerError     2  a tokenizer file is missing or is another one than expected
    ├── ShardError         2  a data set has no index, a cut tar, or another tokenizer
    ├── MissingExtraError  2  an optional package is not installed
    ├── StorageError       1  the disk is full or may not be written
    ├── CheckpointError    1  a checkpoint is not whole or does not fit the run
    ├── TrainingError      1  training cannot go on
    └── ExportError        1  an export differs from its source or cannot be expressed
        └── ModelFolderError  2  a model's folder is malformed, was changed, or holds what we cannot read

A message names the key or file, what was found, and the rule. Exit statuses live on the classes, so that a command line
needs no table of its own.
"""

import difflib
import gc
import math
import operator
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, NoReturn

REQUEST_WRONG = 2
FAILED_ON_THE_WAY = 1
LONGEST_MESSAGE = 4000


class MegadecError(Exception):
    """Base of every error that is meant for a user; `exit_status` is what a command line ends with."""

    exit_status: ClassVar[int] = FAILED_ON_THE_WAY


class ConfigError(MegadecError):
    """A configuration key, its value, or a command line is wrong."""

    exit_status = REQUEST_WRONG


class InputError(MegadecError):
    """A raw source file cannot be read as what it was said to be."""

    exit_status = REQUEST_WRONG


class TokenizerError(MegadecError):
    """A tokenizer file is missing, unreadable, or not the one that was expected."""

    exit_status = REQUEST_WRONG


class ShardError(MegadecError):
    """A folder is not a whole data set, or belongs to another tokenizer."""

    exit_status = REQUEST_WRONG


class MissingExtraError(MegadecError):
    """An optional package is needed here and is not installed."""

    exit_status = REQUEST_WRONG

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; this command needs it: pip install 'megadec[{extra}]'")


class StorageError(MegadecError):
    """The disk is full, or a file or folder may not be written."""


class CheckpointError(MegadecError):
    """A checkpoint is not whole, or does not fit the run that wants it."""


class TrainingError(MegadecError):
    """Training cannot go on: a loss or gradient is not finite, or a rank is lost."""


class ExportError(MegadecError):
    """An export differs from its source, or the format cannot express the model."""


class ModelFolderError(ExportError):
    """A model's folder that was given is malformed, was changed, or holds what we cannot read."""

    exit_status = REQUEST_WRONG


@contextmanager
def needs_extra(package: str, extra: str) -> Iterator[None]:
    """Around the import of an optional package: raises MissingExtraError where it is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra) from error


@contextmanager
def opening_folder() -> Iterator[None]:
    """Around what opens a model's folder that a user named: what is wrong with it is wrong with the request."""
    try:
        yield
    except ExportError as error:
        raise ModelFolderError(str(error)) from error


def check_range(
    options: object,
    section: str,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Raise ConfigError for the first of these fields whose value is out of range; None is not looked at.

    section: stands before a name as the user writes it, such as `train.`.
    """
    limits = (
        ("at least", operator.ge, least), ("above", operator.gt, above), ("below", operator.lt, below),
        ("at most", operator.le, most),
    )  # fmt: skip
    rules = [(f"{words} {limit:g}", holds, limit) for words, holds, limit in limits if limit is not None]
    for name in names:
        value = getattr(options, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{section}{name}={value} is not a finite number")
        if value is not None and not all(holds(value, limit) for _, holds, limit in rules):
            raise ConfigError(f"{section}{name}={value} is not {' and '.join(words for words, _, _ in rules)}")


def check_choice(key: str, value: str, known: Collection[str]) -> None:
    """Raise ConfigError unless `value`, given for `key` as the user writes it, is one of those known."""
    if value not in known:
        raise ConfigError(f"{key}={value!r} is none of {', '.join(known)}{suggest(value, known)}")


def check_some(key: str, values: Sequence[str], known: Collection[str]) -> None:
    """Raise ConfigError unless `values` are some of those known, or `all` or `none` alone."""
    for value in values:
        if value not in ("all", "none", *known):
            raise ConfigError(f"{key}={value!r} is none of all, none, {', '.join(known)}{suggest(value, known)}")
        if value in ("all", "none") and len(values) > 1:
            raise ConfigError(f"{key}={' '.join(values)}: {value} stands alone")


def suggest(word: str, known: Iterable[str]) -> str:
    """The nearest known word as ` (did you mean 'x'?)`, or an empty string where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _one_line(message: str) -> str:
    """A message without what a file of others could make of it: further lines, or millions of characters."""
    line, half = " ".join(message.splitlines()), LONGEST_MESSAGE // 2
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:half]} ... {line[-half:]}"


def run_main(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> NoReturn:
    """Call `main` with the arguments and exit: 0 done, 2 the request was wrong, 1 it failed on the way.

    A MegadecError becomes one line on standard error; any other exception is a defect of ours and keeps its traceback.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except MegadecError as error:
        # Launchers print lines of their own around this one: at a terminal it is the red one.
        red, plain = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
        print(f"{red}error: {_one_line(str(error))}{plain}", file=sys.stderr, flush=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone. Point stdout at nothing so that the interpreter's own flush at
        # exit does not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED_ON_THE_WAY)
    finally:
        gc.freeze()  # else Python looks once more through all that was imported, a second for torch
    sys.exit(0)
