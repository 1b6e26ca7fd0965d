"""A request is taken as it was meant, or refused by the name of the parameter."""

import json
from typing import Any

import pytest

from megadec.serve.bodies.body import IGNORED, NEUTRAL, parse
from megadec.serve.bodies.generate import ChatBody, CompletionBody
from megadec.serve.bodies.texts import ClassifyBody, DetokenizeBody, EmbedBody, TokenizeBody
from megadec.serve.limits import RequestError

PROMPT = {"prompt": "今天"}
CHAT = {"messages": [{"role": "user", "content": "你好"}]}


def read(kind: Any, body: Any) -> Any:
    return parse(kind, json.dumps(body).encode())


def test_null_is_the_same_as_left_out() -> None:
    nothing = dict.fromkeys([*CompletionBody.model_fields, *NEUTRAL])
    for wanted in (read(CompletionBody, PROMPT), read(CompletionBody, {**nothing, **PROMPT})):
        assert (wanted.prompt, wanted.max_tokens, wanted.stop, wanted.stream) == (["今天"], 16, [], False)
        assert (wanted.temperature, wanted.top_p) == (1.0, 1.0)
    assert read(ChatBody, CHAT).max_tokens is None


def test_a_seed_is_taken_and_without_one_two_requests_differ() -> None:
    assert read(CompletionBody, {**PROMPT, "seed": 7}).seed == 7
    assert read(CompletionBody, PROMPT).seed != read(CompletionBody, PROMPT).seed


def test_messages_are_read_with_their_parts_and_roles() -> None:
    parts = [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]
    messages = [{"role": "developer", "content": "简短"}, {"role": "user", "name": "小林", "content": parts}]
    wanted = read(ChatBody, {"messages": messages, "max_completion_tokens": 5, "stop": "。", "temperature": 1})
    assert [(one.role, one.content) for one in wanted.messages] == [("system", "简短"), ("user", "你好")]
    assert (wanted.max_completion_tokens, wanted.stop) == (5, ["。"])


def test_a_prompt_can_be_ids_and_texts_are_one_or_many() -> None:
    for prompt in ([1, 5, 9], [[1, 5, 9]]):
        assert read(CompletionBody, {"prompt": prompt}).prompt == [[1, 5, 9]]
    assert read(CompletionBody, {"prompt": ["一", "二"]}).prompt == ["一", "二"]
    for texts, wanted in (("一", ["一"]), (["一", " 二"], ["一", " 二"])):
        for name in ("texts", "input"):
            assert read(ClassifyBody, {name: texts}).listed == wanted


def test_parameters_that_change_nothing_are_taken() -> None:
    body = {name: value for name, values in NEUTRAL.items() for value in values[:1]}
    assert read(CompletionBody, {**PROMPT, **body, **dict.fromkeys(IGNORED, "x"), "presence_penalty": 0.0})


def user(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", **fields}]}


@pytest.mark.parametrize(
    ("kind", "body", "parameter", "words"),
    [
        (CompletionBody, {}, "prompt", "required"),
        (CompletionBody, {"prompt": 5}, "prompt", "a list of at least one token id, or a list of such; 5 was found"),
        (CompletionBody, {"prompt": ["a", []]}, "prompt", "a list of such"),
        (CompletionBody, {"prompt": [True]}, "prompt", "[true] was found"),
        (CompletionBody, {**PROMPT, "temperature": 2.5}, "temperature", "less than or equal to 2; 2.5 was found"),
        (CompletionBody, {**PROMPT, "temperature": "1"}, "temperature", 'a valid number; "1" was found'),
        (CompletionBody, {**PROMPT, "top_p": 0}, "top_p", "greater than 0"),
        (CompletionBody, {**PROMPT, "max_tokens": -1}, "max_tokens", "greater than or equal to 0; -1 was found"),
        (ChatBody, {**CHAT, "max_tokens": 0}, "max_tokens", "greater than or equal to 1; 0 was found"),
        (CompletionBody, {**PROMPT, "max_tokens": 1.5}, "max_tokens", "a valid integer"),
        (CompletionBody, {**PROMPT, "seed": 2**63}, "seed", "less than or equal to"),
        (CompletionBody, {**PROMPT, "n": 0}, "n", "greater than or equal to 1"),
        (
            CompletionBody,
            {**PROMPT, "suffix": "x"},
            "suffix",
            'suffix="x" is not supported here',
        ),
        (CompletionBody, {**PROMPT, "logprobs": 21}, "logprobs", "less than or equal to 20"),
        (CompletionBody, {**PROMPT, "logprobs": True}, "logprobs", "a valid integer"),
        (CompletionBody, {**PROMPT, "n": 3, "best_of": 2}, "best_of", "less than n=3"),
        (CompletionBody, {**PROMPT, "best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
        (CompletionBody, {**PROMPT, "logit_bias": {"a": 1}}, "logit_bias", "token ids"),
        (CompletionBody, {**PROMPT, "logit_bias": {"5": 101}}, "logit_bias[5]", "less than or equal to 100"),
        (ChatBody, {**CHAT, "top_logprobs": 2}, "top_logprobs", "without logprobs=true"),
        (ChatBody, {**CHAT, "echo": True}, "echo", "not supported"),
        (ChatBody, {**CHAT, "response_format": {"type": "json_schema"}}, "response_format", "only with it"),
        (
            ChatBody,
            {**CHAT, "response_format": {"type": "json_object"}, "ignore_eos": True},
            "ignore_eos",
            "an answer ends where it is whole",
        ),
        (EmbedBody, {"input": []}, "input", "a list of such"),
        (TokenizeBody, {}, "prompt", "one of prompt and messages"),
        (DetokenizeBody, {"tokens": [-1]}, "tokens[0]", "greater than or equal to 0"),
        (CompletionBody, {**PROMPT, "stop": ""}, "stop[0]", "at least 1 character"),
        (CompletionBody, {**PROMPT, "stop": list("abcdefghijklmnopq")}, "stop", "at most 16"),
        (CompletionBody, {**PROMPT, "stream": 1}, "stream", "a valid boolean"),
        (CompletionBody, {**PROMPT, "stream_options": {}}, "stream_options", "without stream=true"),
        (CompletionBody, {**PROMPT, "stream": True, "stream_options": {"a": 1}}, "stream_options.a", "unknown"),
        (CompletionBody, {**PROMPT, "temprature": 1}, "temprature", "did you mean 'temperature'?"),
        (ChatBody, {"messages": []}, "messages", "at least 1 item"),
        (ChatBody, {"messages": ["你好"]}, "messages[0]", 'an object; "你好" was found'),
        (ChatBody, {"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", '"tool" was found'),
        (ChatBody, user(), "messages[0].content", "required"),
        (ChatBody, user(content=[{"type": "image_url"}]), "messages[0].content", "parts of type 'text'"),
        (ChatBody, user(content="", tool_calls=[{}]), "messages[0].tool_calls", "know no tools"),
        (ChatBody, {**CHAT, "response_format": {"type": "xml"}}, "response_format.type", "'json_object'"),
        (ChatBody, {**CHAT, "max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", "two names of one limit"),
        (ClassifyBody, {"texts": []}, "texts", "at least 1 item"),
        (ClassifyBody, {"texts": ["一", 2]}, "texts[1]", "a valid string; 2 was found"),
        (ClassifyBody, {"texts": ["一", "\n"]}, "texts[1]", "is empty"),
    ],
)
def test_what_is_wrong_is_named_with_the_rule_and_what_was_found(
    kind: Any, body: dict[str, Any], parameter: str, words: str
) -> None:
    with pytest.raises(RequestError) as refused:
        read(kind, body)
    assert (refused.value.parameter, refused.value.status) == (parameter, 400)
    assert words in str(refused.value)
    assert parameter in str(refused.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b"[1, 2]", "the body: Input should be an object; [1, 2] was found"),
        (b'{"prompt": "", "temperature": NaN}', "not JSON"),
        (b'{"prompt": "", "temperature": 1' + b"0" * 400 + b"}", "temperature: "),
        (b'{"seed": ' + b"9" * 6000 + b"}", "number out of range"),
        (b"[" * 200_000, "recursion limit"),
        (rb'{"prompt": "\ud800"}', "not JSON in UTF-8"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(CompletionBody, body)
    assert words in str(refused.value)
