"""Labelled texts become ids and labels, and what is wrong with them is said with its file and line."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.common.errors import ConfigError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.sources.reading import ReadOptions
from megadec.finetune.examples import Form, LabelledOptions, LabelledSet, label_weights, read_sets
from tests.support.titles import WORDS, titles


def read(
    tokenizer: Tokenizer, train: Path, dev: Path | None = None, *, seed: int = 0, **more: object
) -> tuple[LabelledSet, LabelledSet | None]:
    options = LabelledOptions(train=str(train), dev=str(dev) if dev else "", **more)  # type: ignore[arg-type]
    return read_sets(options, tokenizer, seed)


def test_a_text_is_its_ids_behind_bos_and_its_label_the_class_of_its_line(titles_folder, tokenizer):
    train, dev = read(tokenizer, titles_folder / "train.txt", titles_folder / "dev.txt")
    assert train.names == tuple(WORDS)
    assert (train.texts, dev.texts) == (60, 18)
    for number, (title, label) in enumerate(titles(60, 1)):
        assert train.ids(number).tolist() == [tokenizer.bos_id, *tokenizer.encode(title)]
        assert train.labels[number] == label
    assert train.lengths.sum() == len(train.tokens)


def test_json_lines_csv_and_parquet_give_the_same_set_as_a_list(tmp_path, titles_folder, tokenizer):
    rows = [{"text": title, "label": tuple(WORDS)[label]} for title, label in titles(60, 1)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    list_set, _ = read(tokenizer, titles_folder / "train.txt")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        found, _ = read(tokenizer, tmp_path / name)
        # Without class.txt the labels are sorted.
        assert found.names == tuple(sorted(WORDS))
        assert found.tokens.tolist() == list_set.tokens.tolist()
        assert [found.names[n] for n in found.labels] == [list_set.names[n] for n in list_set.labels]


def test_category_folders_have_the_labels_of_the_folders_names(tmp_path, tokenizer):
    for label in ("教育", "时政"):
        (tmp_path / "news" / label).mkdir(parents=True)
        (tmp_path / "news" / label / "1.txt").write_text("大家都很高兴\n\u3000\u3000没有人知道原因$LOTOzf$")
    train, _ = read(tokenizer, tmp_path / "news")
    assert train.names == tuple(sorted(("教育", "时政")))
    assert tokenizer.decode(train.ids(0).tolist()[1:]).startswith("大家都很高兴\n")
    assert tokenizer.decode(train.ids(0).tolist()[1:]).endswith("原因")


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("船长\t10\n船长\t9\n船长\t2\n")
    assert read(tokenizer, tmp_path / "a.txt")[0].names == ("2", "9", "10")


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("train.txt", "船长\t7", r"train\.txt: line 61: label 7, but class\.txt has 3 classes"),
        ("train.txt", "船长\t体肓", r"train\.txt: line 61: the label '体肓' is not one of the 3"),
        ("train.txt", "船长没有标签", r"train\.txt.*:61.*船长没有标签"),
        ("train.txt", "\t2", r"train\.txt.*:61"),
        ("a.jsonl", '{"text": " ", "label": "体育"}', r"a\.jsonl: line 2: the text is empty"),
        ("a.jsonl", '{"text": "船长", "label": ""}', r"a\.jsonl: line 2: '船长' has no label"),
        ("a.jsonl", '{"text": "船长"', r"a\.jsonl.*:2"),
    ],
)
def test_a_wrong_line_is_named(titles_folder, tokenizer, name, line, words):
    (titles_folder / "a.jsonl").write_text('{"text": "木匠", "label": "财经"}\n')
    with open(titles_folder / name, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=words):
        read(tokenizer, titles_folder / name)


def test_a_label_that_only_the_held_out_set_has_is_named(tmp_path, tokenizer):
    (tmp_path / "train.jsonl").write_text('{"text": "船长", "label": "甲"}\n{"text": "木匠", "label": "乙"}\n')
    (tmp_path / "dev.jsonl").write_text('{"text": "船长", "label": "甲"}\n{"text": "木匠", "label": "丙"}\n')
    with pytest.raises(InputError, match=r"dev\.jsonl: line 2: the label '丙' is not one of the 2: 乙, 甲"):
        read(tokenizer, tmp_path / "train.jsonl", tmp_path / "dev.jsonl")


def test_sets_that_teach_or_measure_nothing_are_refused(tmp_path, titles_folder, tokenizer):
    (tmp_path / "one.jsonl").write_text('{"text": "船长", "label": "甲"}\n')
    with pytest.raises(InputError, match="at least two"):
        read(tokenizer, tmp_path / "one.jsonl")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(InputError, match="no labelled text at all"):
        read(tokenizer, tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"data\.dev=.* is within data\.train"):
        read(tokenizer, titles_folder, titles_folder / "dev.txt")
    with pytest.raises(InputError, match="nothing"):
        read(tokenizer, tmp_path / "nothing.txt")


def test_held_out_texts_that_were_trained_on_are_counted_aloud(titles_folder, tokenizer, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("megadec"), "propagate", True)
    with open(titles_folder / "dev.txt", "a", encoding="utf-8") as file:
        file.write("{}\t{}\n".format(*titles(60, 1)[0]))
    read(tokenizer, titles_folder / "train.txt", titles_folder / "dev.txt")
    assert "of 19 texts are learned from too" in caplog.text


@pytest.mark.parametrize("cut", ["head", "tail"])
def test_a_text_too_long_for_a_row_is_cut_and_counted(titles_folder, tokenizer, cut):
    whole, _ = read(tokenizer, titles_folder / "train.txt")
    some, _ = read(tokenizer, titles_folder / "train.txt", sequence_length=8, cut=cut)
    assert some.cut == (whole.lengths > 8).sum() > 0
    for number in range(whole.texts):
        ids = whole.ids(number).tolist()
        expected = [ids[0], *(ids[1:8] if cut == "head" else ids[1:][-7:])]
        assert some.ids(number).tolist() == expected


def test_the_template_stands_around_the_text(titles_folder, tokenizer):
    train, _ = read(tokenizer, titles_folder / "train.txt", template="小林{text}？")
    text = tokenizer.decode(train.ids(0).tolist()[1:])
    assert text == f"小林{titles(1, 1)[0][0]}？"
    for template in ("小林", "{text}{text}"):
        with pytest.raises(ConfigError, match="exactly once"):
            Form(template)


def test_columns_can_be_named(tmp_path, tokenizer):
    (tmp_path / "a.csv").write_text("t,k\n船长,甲\n木匠,乙\n")
    options = ReadOptions(text_field="t", label_field="k")
    assert read(tokenizer, tmp_path / "a.csv", read=options)[0].names == ("乙", "甲")
    with pytest.raises(InputError, match="no column of text"):
        read(tokenizer, tmp_path / "a.csv")


def test_balanced_weights_count_every_label_the_same_and_the_mean_text_once(tmp_path, tokenizer):
    lines = "船长\t甲\n" * 6 + "木匠\t乙\n" * 2 + "星星\t丙\n"
    (tmp_path / "a.txt").write_text(lines)
    train, _ = read(tokenizer, tmp_path / "a.txt")
    weights = label_weights(train, "balanced", {})
    assert len({round(weight * count, 9) for weight, count in zip(weights, train.counts.tolist(), strict=True)}) == 1
    assert sum(weights[label] for label in train.labels) / train.texts == pytest.approx(1)
    given = label_weights(train, "none", {"乙": 2.5})
    assert dict(zip(train.names, given, strict=True)) == {"甲": 1.0, "乙": 2.5, "丙": 1.0}
    with pytest.raises(ConfigError, match=r"loss\.weights: the label '丁'"):
        label_weights(train, "none", {"丁": 1.0})
    with pytest.raises(ConfigError, match="not above 0"):
        label_weights(train, "none", {"甲": 0.0})


def test_variants_cut_finer_spell_the_same_texts_with_the_same_labels(titles_folder, tokenizer):
    train, _ = read(tokenizer, titles_folder / "train.txt", variants=3, bpe_dropout=0.5)
    plain, _ = read(tokenizer, titles_folder / "train.txt")
    assert train.labels.tolist() == plain.labels.tolist() * 3
    texts = [tokenizer.decode(train.ids(text)[1:].tolist()) for text in range(train.texts)]
    assert texts == texts[: plain.texts] * 3
    assert all(train.ids(text).tolist() == plain.ids(text).tolist() for text in range(plain.texts))
    assert len(train.tokens) > 3 * len(plain.tokens)


def test_variants_differ_from_each_other_and_by_the_seed_but_not_between_two_starts(titles_folder, tokenizer):
    more = {"variants": 3, "bpe_dropout": 0.5, "token_dropout": 0.3}
    found, again, other = (read(tokenizer, titles_folder / "train.txt", seed=seed, **more)[0] for seed in (0, 0, 1))
    assert found.sha256 == again.sha256 != other.sha256
    texts = found.texts // 3
    assert any(found.ids(n + texts).tolist() != found.ids(n + 2 * texts).tolist() for n in range(texts))


def test_leaving_tokens_out_shortens_a_text_and_leaves_at_least_one(titles_folder, tokenizer):
    found, _ = read(tokenizer, titles_folder / "train.txt", variants=2, bpe_dropout=0.0, token_dropout=0.9)
    half = found.texts // 2
    assert (found.lengths[half:] <= found.lengths[:half]).all()
    assert (found.lengths >= 2).all()
    assert found.lengths[half:].mean() < 0.5 * found.lengths[:half].mean()
    for text in range(half):
        assert set(found.ids(half + text).tolist()) <= set(found.ids(text).tolist())


@pytest.mark.parametrize(("name", "value"), [("variants", 0), ("bpe_dropout", -0.1), ("token_dropout", 1.0)])
def test_impossible_variants_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"data.{name}={value}"):
        LabelledOptions(**{name: value})
