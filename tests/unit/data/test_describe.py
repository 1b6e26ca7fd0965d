"""What a person is shown of a data set."""

from __future__ import annotations

from megadec.common.tokenizer import Tokenizer
from megadec.data.describe import describe_set, describe_window
from megadec.data.index import DataSet
from megadec.data.windows import plan_windows


def test_a_set_is_described_by_its_sources_and_shards(tiny_shards):
    text = describe_set(DataSet.open(tiny_shards))
    for word in ("200 documents", "wiki", "news", "comments", "shard-000000.tar", "licence of wiki"):
        assert word in text


def test_a_window_is_described_by_its_documents_and_how_its_text_begins(
    tiny_shards, tiny_documents, tiny_tokenizer_path
):
    plan = plan_windows(DataSet.open(tiny_shards), 300, "cut")
    text = describe_window(plan, 0, Tokenizer.load(tiny_tokenizer_path))
    assert f"window 0 of {plan.windows}" in text
    assert f"document {tiny_documents[0].id} (wiki)" in text
    assert tiny_documents[0].title in text
