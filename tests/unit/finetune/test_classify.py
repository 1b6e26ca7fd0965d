"""A finished classifier gives each text the answer that it would get alone."""

from pathlib import Path

import pytest
import torch

from megadec.common.errors import ConfigError, InputError
from megadec.export.read.megadec import to_megadec
from megadec.finetune.classify import Classifier, classifier_of, load_classifier
from tests.support.sources import random_classifier
from tests.support.titles import titles

TASK = {"labels": ["体育", "财经", "科技"], "template": "{text}。", "sequence_length": 40, "cut": "tail"}


@pytest.fixture
def classifier(tiny_tokenizer_path: Path) -> Classifier:
    return classifier_of(random_classifier(tiny_tokenizer_path, TASK))


def test_many_texts_at_once_get_the_answers_of_each_alone_cut_as_in_training(classifier):
    texts = [*(title for title, _ in titles(50, 3)), "没有人知道原因" * 30]
    together = classifier.logits(texts)
    alone = torch.cat([classifier.logits([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    plain = torch.stack([by_hand(classifier, text) for text in texts])
    torch.testing.assert_close(together, plain, rtol=1e-4, atol=1e-5)


def by_hand(classifier: Classifier, text: str) -> torch.Tensor:
    ids = [classifier.tokenizer.bos_id, *classifier.tokenizer.encode(f"{text}。")[-39:]]
    with torch.no_grad():
        return classifier.decoder(torch.tensor([ids]), last_only=True)[0, 0]


def test_probabilities_stand_under_their_labels_and_sum_to_one_and_an_empty_text_has_none(classifier):
    [found] = classifier.classify(["木匠修好了收音机"])
    assert list(found) == TASK["labels"]
    assert sum(found.values()) == pytest.approx(1)
    assert classifier.classify([]) == []
    with pytest.raises(InputError, match="text 1 is empty"):
        classifier.classify(["木匠", " \n"])


def test_a_folder_of_a_classifier_loads_and_a_language_model_is_refused(tmp_path, tiny_tokenizer_path, pretrained):
    to_megadec(random_classifier(tiny_tokenizer_path, TASK), tmp_path / "m")
    found = load_classifier(tmp_path / "m")
    assert found.labels == TASK["labels"]
    assert found.form.template == "{text}。"
    with pytest.raises(ConfigError, match="holds a language model, not a classifier"):
        load_classifier(pretrained)
