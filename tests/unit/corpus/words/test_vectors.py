"""Word vectors are trained by one command, the same each time, in a format that others read."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, InputError
from megadec.corpus.document import Document
from megadec.corpus.words.vectors import WordVectors, read_vectors
from tests.support import PROJECT
from tests.support.documents import write_documents

SMALL = ["--size", "12", "--epochs", "20", "--min_count", "2", "--sample", "0"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Words of two worlds that never meet."""
    path = tmp_path_factory.mktemp("documents") / "a.parquet"
    chance = np.random.default_rng(0)
    worlds = (["球队", "教练", "球迷", "对手", "比赛"], ["股市", "上涨", "价格", "银行", "黄金"])
    texts = ["，".join(chance.permutation(worlds[n % 2])) for n in range(300)]
    write_documents(path, [Document(f"{n}", "s", text) for n, text in enumerate(texts)])
    return path


@pytest.fixture(scope="module")
def trained(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "analogies.txt").write_text("球队 教练 股市 银行\n没有 这个 词 的\n", encoding="utf-8")
    arguments = ["--input", documents, "--output", folder / "v", "--analogies", folder / "analogies.txt", *SMALL]
    run_verb(["word-vectors", *map(str, arguments)])
    return folder / "v"


def test_words_that_stand_together_are_near_each_other(trained):
    vectors = read_vectors(trained)
    assert set(vectors.nearest(["球队"], 4)["球队"]) == {"教练", "球迷", "对手", "比赛"}
    report = json.loads((trained / "report.json").read_text(encoding="utf-8"))
    assert (report["documents"], report["words"], report["vocabulary"]) == (300, 1500, 10)
    assert len(report["nearest"]["股市"]) == 8
    assert report["analogies"]["asked"] == 2
    assert report["analogies"]["known"] == 1
    assert sorted(path.name for path in trained.iterdir()) == ["report.json", "vectors.txt"]


def test_another_process_trains_the_same_vectors_bit_by_bit(documents, trained, tmp_path):
    command = ["tools/word_vectors.py", "--input", documents, "--output", tmp_path / "v", "--workers", "2", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, *map(str, command)], cwd=PROJECT, env=environment, check=True, capture_output=True)
    assert (tmp_path / "v" / "vectors.txt").read_bytes() == (trained / "vectors.txt").read_bytes()


def test_gensim_reads_both_formats_alike(documents, trained, tmp_path):
    from gensim.models import KeyedVectors

    arguments = ["--input", documents, "--output", tmp_path / "v", "--format", "binary", *SMALL]
    run_verb(["word-vectors", *map(str, arguments)])
    binary = KeyedVectors.load_word2vec_format(str(tmp_path / "v" / "vectors.bin"), binary=True)
    text = KeyedVectors.load_word2vec_format(str(trained / "vectors.txt"))
    assert binary.index_to_key == text.index_to_key == read_vectors(tmp_path / "v").words
    np.testing.assert_allclose(binary.vectors, text.vectors, rtol=1e-5, atol=1e-7)


def test_the_nearest_are_those_of_the_largest_cosine_in_order_without_the_word_itself():
    unit = np.asarray([[1, 0], [0.8, 0.6], [0.6, 0.8], [-1, 0]], dtype=np.float32)
    vectors = WordVectors(["甲", "乙", "丙", "丁"], unit)
    assert vectors.nearest(["甲", "没有"], 2) == {"甲": ["乙", "丙"]}
    assert vectors.nearest(["甲"], 10, least_similarity=0.7) == {"甲": ["乙"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3 2\n甲 1 0\n乙 0 1\n", "not a whole file of word vectors"),
        ("1 2\n甲 1 0\n", "holds 1 vectors"),
        ("甲 1 0\n", "not a whole file of word vectors"),
        ("2 2\n甲 nan 0\n乙 0 1\n", "finite numbers"),
        ("", "not a whole file of word vectors"),
    ],
)
def test_a_file_that_holds_no_vectors_is_named(tmp_path, text, words):
    (tmp_path / "v.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"v\.txt.*{words}"):
        read_vectors(tmp_path / "v.txt")
    with pytest.raises(InputError, match=r"none\.txt is not a whole file"):
        read_vectors(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"no vectors.txt or vectors.bin in this folder"):
        read_vectors(tmp_path)


def test_too_little_text_and_a_wrong_request_leave_nothing(documents, tmp_path):
    arguments = ["word-vectors", "--input", str(documents), "--output", str(tmp_path / "v")]
    with pytest.raises(InputError, match=r"0 words stand there 1000 times or more.*min_count=1000"):
        run_verb([*arguments, "--min_count", "1000"])
    (tmp_path / "analogies.txt").write_text("甲 乙 丙\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: '甲 乙 丙' has 3 words"):
        run_verb([*arguments, "--analogies", str(tmp_path / "analogies.txt")])
    with pytest.raises(ConfigError, match="size=0 is not at least 1"):
        run_verb([*arguments, "--size", "0"])
    assert [path.name for path in tmp_path.iterdir()] == ["analogies.txt"]
