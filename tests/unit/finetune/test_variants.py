"""Variants of the training texts: other ones each time, the same in every start of a run, none of the held-out ones."""

from __future__ import annotations

import numpy as np

from megadec.engine.runs.common import Job
from megadec.finetune.examples import LabelledSet
from megadec.finetune.rows import ClassifyStream
from tests.unit.finetune.test_task import opened


def texts_of(job: Job) -> LabelledSet:
    assert isinstance(job.task.stream, ClassifyStream)
    return job.task.stream.data


def test_variants_differ_from_each_other_and_not_between_two_starts(tmp_path, pretrained):
    data = {"variants": 3, "bpe_dropout": 0.5, "token_dropout": 0.3}
    found, again = (texts_of(opened(tmp_path, pretrained, data=data)) for _ in range(2))
    plain = texts_of(opened(tmp_path, pretrained))
    assert found.sha256 == again.sha256
    assert found.labels.tolist() == plain.labels.tolist() * 3
    assert all(np.array_equal(found.ids(text), plain.ids(text)) for text in range(plain.texts))
    second, third = (range(plain.texts * n, plain.texts * (n + 1)) for n in (1, 2))
    assert any(not np.array_equal(found.ids(a), found.ids(b)) for a, b in zip(second, third, strict=True))
    other = texts_of(opened(tmp_path, pretrained, data=data, seed=1))
    assert other.sha256 != found.sha256


def test_leaving_tokens_out_shortens_a_text_and_leaves_at_least_one(tmp_path, pretrained):
    data = {"variants": 2, "bpe_dropout": 0.0, "token_dropout": 0.9}
    found = texts_of(opened(tmp_path, pretrained, data=data))
    half = found.texts // 2
    assert (found.lengths[half:] <= found.lengths[:half]).all()
    assert (found.lengths >= 2).all()
    assert found.lengths[half:].mean() < 0.5 * found.lengths[:half].mean()
    for text in range(half):
        assert set(found.ids(half + text).tolist()) <= set(found.ids(text).tolist())
