"""Log-probabilities are given with whole characters, exact bytes, and one entry for each token."""

import json

from megadec.common.tokenizer import Tokenizer
from megadec.decoding.continuation import Continuation
from megadec.decoding.sampling import Sampling, Score
from megadec.serve.answer import Answer
from megadec.serve.choices import Logprobs, Scored, best, chat_logprobs, completion_logprobs, token_text, usage
from tests.support.served import byte_ids


def answer_of(tokenizer: Tokenizer, ids: list[int], echo: bool = False, index: int = 0) -> Answer:
    prompt = tokenizer.prompt_ids("小")
    continuation = Continuation(prompt, Sampling(len(ids)), tokenizer.end_ids, None, 1, echo)
    continuation.prompt_scores += [Score(-1.0, ((5, -0.5),))] * (len(prompt) - 1)
    for one in ids:
        continuation.take(one, Score(-float(index), ()))
    return Answer(continuation, tokenizer, (), lambda: None, index, echo)


def test_a_part_of_a_character_is_shown_as_its_bytes_and_a_special_token_by_its_name(tokenizer: Tokenizer) -> None:
    assert [token_text(tokenizer, one) for one in byte_ids(tokenizer, "é")] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert token_text(tokenizer, tokenizer.eos_id) == tokenizer.entry(tokenizer.eos_id).text
    scored = [Scored(one, Score(-1.0, ())) for one in byte_ids(tokenizer, "é")]
    content = chat_logprobs(tokenizer, scored)["content"]
    assert bytes(byte for one in content for byte in one["bytes"]).decode() == "é"
    characters, found = completion_logprobs(tokenizer, scored, 3)
    assert (characters, found["text_offset"]) == (4, [3, 3])


def test_a_token_that_cannot_come_has_a_number_that_json_can_hold(tokenizer: Tokenizer) -> None:
    scored = [Scored(5, Score(-float("inf"), ((5, -float("inf")),)))]
    assert completion_logprobs(tokenizer, scored, 0)[1]["token_logprobs"] == [-9999.0]
    json.dumps(chat_logprobs(tokenizer, scored), allow_nan=False)


def test_parts_of_a_stream_are_together_the_whole_and_the_end_token_is_the_last(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("林在河边"), *byte_ids(tokenizer, "骉")]
    whole = answer_of(tokenizer, [*ids, tokenizer.eos_id], echo=True)
    whole.turn()
    found = Logprobs(whole, tokenizer, False).take(True)
    assert found is not None
    shown = [token_text(tokenizer, one) for one in [*whole.continuation.prompt_ids, *ids, tokenizer.eos_id]]
    assert found["tokens"] == shown
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    assert {len(one) for one in found.values()} == {len(shown)}
    streamed = answer_of(tokenizer, ids[:2], echo=True)
    logprobs, parts = Logprobs(streamed, tokenizer, False), []
    streamed.turn()
    parts.append(logprobs.take(False))
    for one in [*ids[2:], tokenizer.eos_id]:
        streamed.continuation.finished = None
        streamed.continuation.take(one, Score(-0.0, ()))
        streamed.turn()
        parts.append(logprobs.take(one == tokenizer.eos_id))
    for name in ("tokens", "text_offset"):
        assert [one for part in parts for one in part[name]] == found[name]  # type: ignore[index]


def test_the_best_are_those_likeliest_a_token_and_the_usage_counts_all(tokenizer: Tokenizer) -> None:
    answers = [answer_of(tokenizer, [300 + index] * 4, index=index) for index in (2, 0, 1, 3)]
    for place, answer in enumerate(answers):
        answer.turn()
        answer.index = place
    prompt = len(answers[0].continuation.prompt_ids)
    assert usage(answers, 2) == {
        "prompt_tokens": 2 * prompt,
        "completion_tokens": 16,
        "total_tokens": 2 * prompt + 16,
    }
    kept = best(answers, 2, 1)
    assert [one.continuation.ids[0] for one in kept] == [300, 301]
    assert [one.index for one in kept] == [0, 1]
