"""The comparisons find what they are there to find."""

from __future__ import annotations

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.export.parity import (
    GREEDY_TOKENS,
    LOGIT_TOLERANCE,
    TEXTS,
    compare_greedy,
    compare_logits,
    compare_token_ids,
    prompt_ids,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_path)


def test_the_tokenizer_itself_passes_on_every_text(tokenizer):
    compared = compare_token_ids(
        tokenizer, tokenizer.encode_many, lambda all_ids: [tokenizer.decode(i) for i in all_ids]
    )
    assert compared == len(TEXTS) + tokenizer.vocabulary_size - 3


def test_one_other_id_is_found(tokenizer):
    def encode(texts):
        found = tokenizer.encode_many(texts)
        found[3] = [*found[3], 5]
        return found

    with pytest.raises(ExportError, match="token ids of"):
        compare_token_ids(tokenizer, encode, lambda all_ids: [tokenizer.decode(ids) for ids in all_ids])


def test_one_piece_with_another_text_is_found(tokenizer):
    def decode(all_ids):
        return ["?" if list(ids) == [400] else tokenizer.decode(ids) for ids in all_ids]

    with pytest.raises(ExportError, match=r"text of ids \[400\]"):
        compare_token_ids(tokenizer, tokenizer.encode_many, decode)


def logits_of(shift: float = 0.0):
    def model(ids_BS):
        logits_BSV = torch.nn.functional.one_hot(ids_BS % 7, 8).float()
        logits_BSV[0, -1, 3] += shift
        return logits_BSV

    return model


def test_logits_within_the_tolerance_pass_and_their_distance_is_told():
    found = compare_logits([[1, 2], [1]], logits_of(), logits_of(0.5 * LOGIT_TOLERANCE))
    assert found == pytest.approx(0.5 * LOGIT_TOLERANCE, rel=0.01)


@pytest.mark.parametrize("shift", [2 * LOGIT_TOLERANCE, float("nan")])
def test_other_logits_are_an_error(shift):
    with pytest.raises(ExportError, match=r"logits of ids \[1, 2\]"):
        compare_logits([[1, 2]], logits_of(), logits_of(shift))


def best_next(ids_BS):
    """Prefers the id after the last one."""
    return torch.nn.functional.one_hot((ids_BS + 1) % 50, 50).float()


def test_equal_greedy_text_passes_and_ends_at_the_end_of_the_document():
    tokens = compare_greedy([[1], [40]], best_next, lambda ids, n: [ids[-1] + 1 + i for i in range(n)], 45, 100)
    assert tokens == GREEDY_TOKENS + 5


def test_one_other_greedy_token_is_found():
    with pytest.raises(ExportError, match="the export gives id 9, the model 3"):
        compare_greedy([[1]], best_next, lambda ids, n: [2, 9], 45, 100)


def test_a_tie_may_go_either_way():
    assert compare_greedy([[1]], lambda ids_BS: torch.zeros(1, ids_BS.shape[1], 5), lambda ids, n: [4], 2, 100) == 1


def test_prompts_leave_room_in_a_small_context(tokenizer):
    assert all(len(ids) <= 20 - GREEDY_TOKENS and ids[0] == tokenizer.bos_id for ids in prompt_ids(tokenizer, 20))
