"""What a person is shown of a data set."""

import pytest

from megadec.common.errors import ConfigError
from megadec.data.describe import describe_set, describe_step, describe_window
from megadec.data.stream import TrainStream
from megadec.data.windows import plan_windows


def test_a_set_is_described_by_its_sources_and_shards(data):
    text = describe_set(data)
    for word in ("200 documents", "wiki", "news", "comments", "shard-000000.tar", "licence of wiki"):
        assert word in text


def test_a_window_is_described_by_its_documents_and_how_its_text_begins(data, tiny_documents, tokenizer):
    plan = plan_windows(data, 300, "cut")
    text = describe_window(plan, 0, tokenizer)
    assert f"window 0 of {plan.windows}" in text
    assert f"document {tiny_documents[0].id} (wiki)" in text
    assert tiny_documents[0].title in text


def test_a_step_is_described_by_the_documents_of_its_rows(data):
    stream = TrainStream([(data, 1.0)], 300, "cut", 4, 6)
    text = describe_step(stream, 11)
    for row, window in enumerate(stream.windows_of(10)):
        part = text.split(f"sequence {row}, ")[1].split(f"sequence {row + 1}, ")[0]
        assert f"window {window.window} of " in part
        names = [span.id for span in stream.documents_of(window)]
        assert [line.split()[1] for line in part.splitlines() if line.startswith("  document")] == names
    assert text.startswith("step 11: places 60 to 65")
    assert "sequence 0," not in describe_step(stream, 11, sequences=(2,))
    with pytest.raises(ConfigError, match="sequence 6: a step of this run has the sequences 0 to 5"):
        describe_step(stream, 11, sequences=(6,))
