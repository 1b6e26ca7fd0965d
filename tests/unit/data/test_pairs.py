"""Files of pairs: what is read, what is refused and where, what is left out and counted, what is held out."""

import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from megadec.common.errors import ConfigError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.data.pairs import PairCounts, PairOptions, choose_pairs, open_pairs, read_pairs
from tests.support.pair_texts import texts, write_pairs


def options(source: Path, **more: Any) -> PairOptions:
    return PairOptions(source=str(source), **more)


def test_one_file_with_tabs_and_two_files_of_lines_are_the_same_pairs(tmp_path: Path) -> None:
    sources = texts(50)
    tabs = write_pairs(tmp_path / "pairs.txt", sources, "reverse")
    (tmp_path / "from.txt.zst").write_bytes(pa.compress("\n".join(sources).encode(), codec="zstd", asbytes=True))
    with lzma.open(tmp_path / "to.txt.xz", "wt", encoding="utf-8", newline="\r\n") as file:
        file.write("".join(f"{text[::-1]}\n" for text in sources))
    expected = [(text, text[::-1]) for text in sources]
    assert list(read_pairs(options(tabs))) == expected
    two = options(tmp_path / "from.txt.zst", target=str(tmp_path / "to.txt.xz"))
    assert list(read_pairs(two)) == expected
    assert list(read_pairs(options(tabs, swap=True))) == [(target, source) for source, target in expected]


def test_what_follows_a_second_tab_a_mark_at_the_start_and_blanks_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_bytes("\ufeff早 \t 晚\tCC-BY #7\r\n\n一\t二\n".encode())
    assert list(read_pairs(options(path))) == [("早", "晚"), ("", ""), ("一", "二")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("早\t晚\n只有一边\n", r"pairs\.txt, line 2: '只有一边' has no TAB"),
        ("早\t晚\n".encode() * 2 + "早\t晚\n".encode("gb18030"), r"pairs\.txt, line 3: d4 e7 09 cd is not UTF-8"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        list(read_pairs(options(path)))


@pytest.mark.parametrize(("lines", "short"), [((3, 2), "to.txt"), ((2, 3), "from.txt")])
def test_files_of_different_length_are_refused(tmp_path: Path, lines: tuple[int, int], short: str) -> None:
    for name, count in zip(("from.txt", "to.txt"), lines, strict=True):
        (tmp_path / name).write_text("字\n" * count, encoding="utf-8")
    with pytest.raises(InputError, match=rf"{short} ends before line 3"):
        list(read_pairs(options(tmp_path / "from.txt", target=str(tmp_path / "to.txt"))))


def test_a_file_that_is_missing_or_not_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        list(read_pairs(options(tmp_path / "none.txt")))
    with pytest.raises(ConfigError, match=r"data\.source names no file"):
        list(read_pairs(PairOptions()))


def test_ids_are_those_of_the_tokenizer_and_only_sources_have_their_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_pairs(tmp_path / "pairs.txt", texts(40), "reverse")
    pairs = open_pairs(options(path, held_out_fraction=0), tokenizer, "train")
    assert len(pairs) == 40
    for number, text in enumerate(texts(40)):
        assert pairs.sources[number].tolist() == [*tokenizer.encode(text), tokenizer.eos_id]
        assert pairs.targets[number].tolist() == tokenizer.encode(text[::-1])


def test_pairs_that_are_empty_or_too_long_are_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(f"早\t晚\n\n早\t\n{'晚' * 20}\t早\n早\t{'晚' * 20}\n", encoding="utf-8")
    limits = options(path, held_out_fraction=0, max_source_tokens=10, max_target_tokens=10)
    counts = open_pairs(limits, tokenizer, "train").counts
    assert counts == PairCounts(read=5, kept=1, empty=2, source_too_long=1, target_too_long=1)
    assert "1 of 5 pairs" in str(counts)
    with pytest.raises(ConfigError, match="no pair is left for the part 'held_out'"):
        open_pairs(limits, tokenizer, "held_out")


def test_each_source_is_on_one_side_only_and_stays_there_whatever_stands_around_it(tmp_path: Path) -> None:
    sources = texts(400)
    whole = write_pairs(tmp_path / "whole.txt", sources, "copy")
    more = write_pairs(tmp_path / "more.txt", [*texts(300, seed=5), *reversed(sources)], "reverse")
    held, train = (
        {path: {s for s, _ in choose_pairs(options(path, held_out_fraction=0.2), part)} for path in (whole, more)}
        for part in ("held_out", "train")
    )
    for path in (whole, more):
        assert not held[path] & train[path]
    assert held[whole] | train[whole] == set(sources)
    assert held[whole] == held[more] & set(sources)
    assert 50 < len(held[whole]) < 110
    # Blanks, punctuation and width do not make it another source.
    near = tmp_path / "near.txt"
    near.write_text("".join(f" {text}。\t\uff21\n" for text in held[whole]), encoding="utf-8")
    assert list(choose_pairs(options(near, held_out_fraction=0.2), "train")) == []


def test_contents_of_another_file_part_or_limit_have_another_hash(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_pairs(tmp_path / "pairs.txt", texts(100), "copy")
    other = write_pairs(tmp_path / "other.txt", texts(100), "reverse")
    found = [
        open_pairs(options(path, held_out_fraction=0.2), tokenizer, "train"),
        open_pairs(options(path, held_out_fraction=0.2), tokenizer, "held_out"),
        open_pairs(options(path, held_out_fraction=0.2, max_source_tokens=4), tokenizer, "train"),
        open_pairs(options(other, held_out_fraction=0.2), tokenizer, "train"),
    ]
    assert len({pairs.sha256 for pairs in found}) == 4
    assert open_pairs(options(path, held_out_fraction=0.2), tokenizer, "train").sha256 == found[0].sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out_fraction": 1.0}, "data.held_out_fraction=1.0 is not at least 0 and below 1"),
        ({"max_source_tokens": 1}, "data.max_source_tokens=1 is not at least 2"),
    ],
)
def test_options_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PairOptions(source="pairs.txt", **change)
