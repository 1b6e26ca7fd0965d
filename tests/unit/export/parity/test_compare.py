"""The comparisons find what they are there to find."""

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.export.parity.compare import (
    GREEDY_TOKENS,
    LOGIT_TOLERANCE,
    PROMPTS,
    TEXTS,
    compare_greedy,
    compare_logits,
    compare_tokenizer,
    greedy_text,
    prompt_ids,
)


def compare(ours: Tokenizer, **changes) -> int:
    """The tokenizer with itself, in some of what a runtime gives changed."""
    theirs = {
        "encode": lambda text, special: [ours.bos_id] * special + ours.encode(text),
        "decode": ours.decode,
        "bos_and_eos": (ours.bos_id, ours.eos_id),
        "encode_template": ours.encode_template,
    }
    return compare_tokenizer(ours, **{**theirs, **changes})


def test_the_tokenizer_itself_passes_on_every_text(tokenizer):
    assert compare(tokenizer) == len(TEXTS) + tokenizer.vocabulary_size - 3


def test_one_other_id_a_missing_beginning_another_end_and_one_other_text_are_found(tokenizer):
    for changes, words in (
        ({"encode": lambda text, special: tokenizer.encode(text) + [5] * (text == TEXTS[3])}, "token ids of"),
        ({"encode": lambda text, special: tokenizer.encode(text)}, r"<s> .* and its ids are wanted"),
        ({"bos_and_eos": (tokenizer.bos_id, 0)}, "the export has <s> and </s> at"),
        ({"encode_template": tokenizer.encode}, "template '<unk>"),
        ({"decode": lambda ids: "?" if list(ids) == [400] else tokenizer.decode(ids)}, r"text of ids \[400\]"),
    ):
        with pytest.raises(ExportError, match=words):
            compare(tokenizer, **changes)


def logits_of(shift: float = 0.0):
    def model(ids_BS):
        logits_BSV = torch.nn.functional.one_hot(ids_BS % 7, 8).float()
        logits_BSV[0, -1, 3] += shift
        return logits_BSV

    return model


def theirs_of(shift: float):
    return lambda ids: logits_of(shift)(torch.tensor([ids]))[0]


def test_logits_within_the_tolerance_pass_and_their_distance_is_told_and_others_are_an_error():
    found = compare_logits([[1, 2], [1]], logits_of(), theirs_of(0.5 * LOGIT_TOLERANCE))
    assert found == pytest.approx(0.5 * LOGIT_TOLERANCE, rel=0.01)
    for shift in (2 * LOGIT_TOLERANCE, float("nan")):
        with pytest.raises(ExportError, match=r"logits of ids \[1, 2\]"):
            compare_logits([[1, 2]], logits_of(), theirs_of(shift))


def best_next(ids_BS):
    """Prefers the id after the last one."""
    return torch.nn.functional.one_hot((ids_BS + 1) % 50, 50).float()


def test_equal_greedy_text_passes_to_the_end_of_the_document_and_one_other_token_is_found():
    assert compare_greedy([[1], [40]], best_next, [range(2, 10), range(41, 60)], [45, 90]) == 8 + 5
    with pytest.raises(ExportError, match="the export gives id 9, the model 3"):
        compare_greedy([[1]], best_next, [[2, 9]], [45])


def test_a_tie_may_go_either_way_and_ends_the_comparison_of_its_prompt_but_not_to_a_third_token():
    def two_alike(ids_BS):
        return torch.tensor([1.0, 1.0, 0.5]).expand(1, ids_BS.shape[1], 3)

    assert compare_greedy([[1], [1]], two_alike, [[0, 1, 2]] * 2, [9]) == 2
    with pytest.raises(ExportError, match="the export gives id 2, the model 0"):
        compare_greedy([[1]], two_alike, [[2]], [9])


def test_a_wider_tolerance_is_in_units_of_the_spread_of_the_logits():
    wide_SV = torch.tensor([[-10.0, 0.0, 10.0]] * 2)

    def compared(shift):
        return compare_logits([[1, 2]], lambda ids_BS: wide_SV[None], lambda ids: wide_SV + shift, tolerance=0.1)

    assert compared(0.8) == pytest.approx(0.8)
    with pytest.raises(ExportError, match=r"differ by 1\.00e\+00; at most"):
        compared(1.0)


def test_a_runtime_with_sessions_generates_until_the_end_of_the_document():
    class Counting:
        """Prefers the id after the last one that it was fed."""

        def feed(self, ids):
            return torch.nn.functional.one_hot(torch.tensor(ids[-1] + 1), 50).double()

    assert greedy_text(Counting, [9], [[3, 4], [7]], 3) == [[5, 6, 7], [8, 9]]


def test_the_fifty_prompts_are_texts_too_and_leave_room_in_a_small_context(tokenizer):
    assert len(PROMPTS) == len(set(PROMPTS)) == 50
    assert set(PROMPTS) < set(TEXTS)
    assert max(map(len, PROMPTS)) > 300
    assert all(len(ids) <= 20 - GREEDY_TOKENS and ids[0] == tokenizer.bos_id for ids in prompt_ids(tokenizer, 20))
