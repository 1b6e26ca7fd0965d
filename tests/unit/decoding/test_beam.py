"""Beam search against the search of everything, greedy search and full passes."""

import itertools
import re
from typing import Any

import pytest
import torch
from torch import nn

from megadec.common.errors import ConfigError, InputError
from megadec.decoding.beam import Beam, Found, search
from tests.support.seq2seq_models import RNN, SHAPES, TRANSFORMER, VOCABULARY, model_of

BOS, EOS = 1, 2
SOURCES = [[7, 3, 9, EOS], [5, EOS], [3, 3, 8, 6, 4, 7, EOS], [EOS]]
TINY = [
    (name, {**values, "vocabulary_size": 5})
    for name, values in (("transformer_seq2seq", TRANSFORMER), ("rnn_seq2seq", RNN))
]


def find(model: nn.Module, sources: list[list[int]], **how: Any) -> list[Found]:
    return search(model, sources, Beam(**how), bos_id=BOS, eos_id=EOS)


@torch.no_grad()
def log_probabilities(model: nn.Module, source: list[int], targets: list[tuple[int, ...]]) -> list[float]:
    """Of each target, by one full pass over all, in which nothing is kept."""
    longest = max(map(len, targets))
    padded_NS = torch.tensor([[*ids, *[EOS] * (longest - len(ids))] for ids in targets])
    ids_NS = torch.cat([torch.full((len(targets), 1), BOS), padded_NS[:, :-1]], dim=1)
    sources_NT, lengths_N = torch.tensor([source] * len(targets)), torch.tensor([len(source)] * len(targets))
    logits_NSV = model(ids_NS, source_ids_BT=sources_NT, source_lengths_B=lengths_N)
    each_NS = logits_NSV.log_softmax(-1).gather(2, padded_NS[:, :, None])[:, :, 0]
    return [float(row_S[: len(ids)].sum()) for row_S, ids in zip(each_NS, targets, strict=True)]


@torch.no_grad()
def greedy_ids(model: nn.Module, source: list[int], most: int) -> tuple[int, ...]:
    """The likeliest token each time, by a full pass for each."""
    ids: tuple[int, ...] = ()
    while len(ids) < most and EOS not in ids:
        lengths_B = torch.tensor([len(source)])
        logits = model(torch.tensor([[BOS, *ids]]), source_ids_BT=torch.tensor([source]), source_lengths_B=lengths_B)
        ids = (*ids, int(logits[0, -1].argmax()))
    return ids


@pytest.mark.parametrize(("name", "values"), TINY)
def test_a_beam_that_is_wide_enough_finds_the_best_of_all(name: str, values: dict[str, Any]) -> None:
    model, longest = model_of(name, values, seed=5), 3
    others = [token for token in range(5) if token != EOS]
    # Every target that ends within the limit, and every one that the limit cuts.
    ended = [(*start, EOS) for length in range(longest) for start in itertools.product(others, repeat=length)]
    whole = [*ended, *itertools.product(others, repeat=longest)]
    for source in ([3, 4, EOS], [4, EOS]):
        sums = dict(zip(whole, log_probabilities(model, source, whole), strict=True))
        for length_penalty in (0.0, 0.7, 1.0, 2.5):
            best = max(sums, key=lambda ids: sums[ids] / len(ids) ** length_penalty)
            [found] = find(model, [source], beam=200, max_new_tokens=longest, length_penalty=length_penalty)
            assert found.ids == best
            assert found.score == pytest.approx(sums[best] / len(best) ** length_penalty, rel=1e-9)


@pytest.mark.parametrize(("name", "values"), SHAPES)
def test_a_beam_of_one_is_greedy_search_and_scores_are_the_log_probabilities_of_full_passes(
    name: str, values: dict[str, Any]
) -> None:
    model = model_of(name, values)
    for source, found in zip(SOURCES, find(model, SOURCES, beam=1, max_new_tokens=12), strict=True):
        assert found.ids == greedy_ids(model, source, 12)
    for source, found in zip(SOURCES, find(model, SOURCES, beam=4, max_new_tokens=9), strict=True):
        [expected] = log_probabilities(model, source, [found.ids])
        assert found.log_probability == pytest.approx(expected, rel=1e-6)
        assert found.score == pytest.approx(found.log_probability / len(found.ids))


@pytest.mark.parametrize(("name", "values"), SHAPES[1:4])
def test_sources_of_a_batch_are_searched_as_each_alone(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    together = find(model, SOURCES, beam=3, max_new_tokens=9)
    assert [found.ids for found in together] == [find(model, [s], beam=3, max_new_tokens=9)[0].ids for s in SOURCES]
    assert len({found.ids for found in together}) > 1


def test_a_target_never_outgrows_the_context() -> None:
    model = model_of(*SHAPES[0])
    model.lm_head.weight.data[EOS] = -10 * model.lm_head.weight.data.sum(0).sign()  # which all but never ends
    for found in find(model, SOURCES, beam=2, max_new_tokens=100):
        assert len(found.ids) <= 24
        assert all(0 <= i < VOCABULARY for i in found.ids)


def test_what_cannot_be_searched_is_refused() -> None:
    model = model_of(*SHAPES[0])
    with pytest.raises(InputError, match="a source has no tokens"):
        find(model, [[3, EOS], []])
    with pytest.raises(InputError, match="a source of 25 tokens does not fit"):
        find(model, [[3] * 25])
    for change, message in (
        ({"beam": 0}, "beam=0 is not at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is not at least 1"),
        ({"length_penalty": -1.0}, "length_penalty=-1.0 is not at least 0 and below inf"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            Beam(**change)
