"""The comparisons find what they are there to find."""

from dataclasses import replace

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.export.parity.compare import (
    LOGIT_TOLERANCE,
    PROMPTS,
    TEXTS,
    Parity,
    check_greedy,
    check_logits,
    check_loss,
    compare_tokenizer,
    continue_greedily,
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
    ids = [1, 2]
    wanted_SV = logits_of()(torch.tensor([ids]))[0]
    found = check_logits(ids, wanted_SV, theirs_of(0.5 * LOGIT_TOLERANCE)(ids))
    assert found == pytest.approx(0.5 * LOGIT_TOLERANCE, rel=0.01)
    for shift in (2 * LOGIT_TOLERANCE, float("nan")):
        with pytest.raises(ExportError, match=r"logits of ids \[1, 2\]"):
            check_logits(ids, wanted_SV, theirs_of(shift)(ids))


def test_greedy_tokens_that_are_ours_are_counted_a_tie_may_go_either_way_and_another_token_is_found():
    two_alike_TV = torch.tensor([[1.0, 1.0, 0.5]] * 3)
    assert check_greedy([1], [0, 1, 0], two_alike_TV) == 2
    with pytest.raises(ExportError, match="the export gives id 2, the model 0"):
        check_greedy([1], [0, 1, 2], two_alike_TV)


def test_a_wider_tolerance_is_in_units_of_the_spread_of_the_logits():
    wide_SV = torch.tensor([[-10.0, 0.0, 10.0]] * 2)

    def compared(shift):
        return check_logits([1, 2], wide_SV, wide_SV + shift, tolerance=0.1)

    assert compared(0.8) == pytest.approx(0.8)
    with pytest.raises(ExportError, match=r"differ by 1\.00e\+00; at most"):
        compared(1.0)


def test_a_runtime_with_a_cache_continues_each_prompt_until_the_end_of_the_document_with_logits_behind_every_id():
    fed: list[list[list[int]]] = []

    def feed(rows):
        """Prefers the id after the last one that it was fed."""
        fed.append([list(ids) for ids in rows])
        return [torch.nn.functional.one_hot(torch.tensor(ids) + 1, 50).float() for ids in rows]

    found = continue_greedily(feed, [9, 30], [[3, 4, 5], [4, 5, 6, 7]], 3)
    assert [made for made, _ in found] == [[6, 7, 8], [8, 9]]
    assert [logits_SV.argmax(-1).tolist() for _, logits_SV in found] == [[4, 5, 6, 7, 8], [5, 6, 7, 8, 9]]
    # Most of a prompt at once, two ids behind a cache, then one by one: each way in which a graph is used.
    assert fed == [[[3], [4, 5]], [[4, 5], [6, 7]], [[6], [8]], [[7], [9]]]
    fed.clear()
    assert continue_greedily(feed, [9], [[3]], 1)[0][0] == [4]
    assert fed == [[[3]]]


def test_a_loss_of_bits_within_the_share_is_stated_and_a_larger_one_and_one_that_is_no_number_are_errors():
    parity = Parity(0.1, 8, 32, 600, runtime="llama.cpp q4_k_m", bits_per_character=4.04)
    stated = check_loss(parity, 4.0, 0.01)
    assert stated.source_bits_per_character == 4.0
    assert "4.0400 bits per character, 4.0000 before" in str(stated)
    for bits in (4.05, float("nan")):
        with pytest.raises(ExportError, match="loses too much"):
            check_loss(replace(parity, bits_per_character=bits), 4.0, 0.01)


def test_the_quick_prompts_are_spread_over_the_set_and_hold_the_longest(tokenizer):
    quick = prompt_ids(tokenizer, 2048, "quick")
    assert len(quick) == 8
    assert max(map(len, quick)) == max(map(len, prompt_ids(tokenizer, 2048)))


def test_the_fifty_prompts_are_texts_too_and_leave_room_in_a_small_context(tokenizer):
    assert len(PROMPTS) == len(set(PROMPTS)) == 50
    assert set(PROMPTS) < set(TEXTS)
    assert max(map(len, PROMPTS)) > 300
    assert all(len(ids) <= 20 - 16 and ids[0] == tokenizer.bos_id for ids in prompt_ids(tokenizer, 20))
