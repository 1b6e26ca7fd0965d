"""A request is taken as it was meant, or refused by the name of the parameter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from megadec.serve.limits import RequestError
from megadec.serve.request import (
    IGNORED,
    NEUTRAL,
    GenerateRequest,
    Message,
    chat_request,
    classify_request,
    completion_request,
)
from megadec.serve.values import read_object
from megadec.serve.wire import json_bytes

CHAT = {"messages": [{"role": "user", "content": "你好"}]}


def test_what_is_left_out_has_the_values_of_the_api() -> None:
    wanted = completion_request({"prompt": "今天"})
    assert (wanted.prompt, wanted.max_tokens, wanted.stop, wanted.stream) == ("今天", 16, (), False)
    assert (wanted.sampling.temperature, wanted.sampling.top_p) == (1.0, 1.0)
    assert chat_request(CHAT).max_tokens is None


def test_null_is_the_same_as_left_out() -> None:
    nothing = dict.fromkeys(["temperature", "top_p", "seed", "stop", "stream", "stream_options", "model", *NEUTRAL])
    wanted = completion_request({"prompt": "今天", "max_tokens": None, **nothing})
    assert wanted.sampling.temperature == 1.0
    assert wanted.max_tokens == 16


def test_a_seed_is_taken_and_without_one_two_requests_differ() -> None:
    assert completion_request({"prompt": "", "seed": 7}).sampling.seed == 7
    assert completion_request({"prompt": ""}).sampling.seed != completion_request({"prompt": ""}).sampling.seed


def test_messages_are_read_with_their_parts_and_roles() -> None:
    wanted = chat_request(
        {
            "messages": [
                {"role": "developer", "content": "简短"},
                {
                    "role": "user",
                    "name": "小林",
                    "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}],
                },
            ],
            "max_completion_tokens": 5,
            "stop": "。",
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    assert wanted.prompt == (Message("system", "简短"), Message("user", "你好"))
    assert (wanted.max_tokens, wanted.max_tokens_name) == (5, "max_completion_tokens")
    assert wanted.stop == ("。",)
    assert wanted.include_usage


@pytest.mark.parametrize("prompt", [[1, 5, 9], [[1, 5, 9]]])
def test_a_prompt_can_be_ids(prompt: list[Any]) -> None:
    assert completion_request({"prompt": prompt}).prompt == (1, 5, 9)


def test_parameters_that_change_nothing_are_taken() -> None:
    body = {name: value for name, values in NEUTRAL.items() for value in values[:1]}
    assert isinstance(completion_request({"prompt": "", **body, **dict.fromkeys(IGNORED, "x")}), GenerateRequest)


WRONG = [
    (completion_request, {}, "prompt", "missing or null"),
    (completion_request, {"prompt": 5}, "prompt", "the number 5"),
    (completion_request, {"prompt": ["a", "b"]}, "prompt", "2 prompts; one prompt a request"),
    (completion_request, {"prompt": [True]}, "prompt", "a list of 1"),
    (completion_request, {"prompt": "\ud800"}, "prompt", r"half a surrogate pair (\ud800)"),
    (
        completion_request,
        {"prompt": "", "temperature": 2.5},
        "temperature",
        "2.5, which is out of range: from 0 to 2",
    ),
    (completion_request, {"prompt": "", "temperature": "1"}, "temperature", "the text '1'; a number"),
    (completion_request, {"prompt": "", "temperature": True}, "temperature", "true; a number"),
    (completion_request, {"prompt": "", "top_p": 0}, "top_p", "over 0 and at most 1"),
    (completion_request, {"prompt": "", "max_tokens": 0}, "max_tokens", "is 0, which is out of range: at least 1"),
    (completion_request, {"prompt": "", "max_tokens": 1.5}, "max_tokens", "a whole number"),
    (completion_request, {"prompt": "", "seed": 2**63}, "seed", "out of range"),
    (completion_request, {"prompt": "", "n": 2}, "n", "n=2 is not supported here; leave it out, or give 1 or null"),
    (completion_request, {"prompt": "", "logprobs": 0}, "logprobs", "logprobs=0 is not supported"),
    (completion_request, {"prompt": "", "echo": True}, "echo", "not supported"),
    (completion_request, {"prompt": "", "logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    (completion_request, {"prompt": "", "stop": ""}, "stop", "none of them empty"),
    (completion_request, {"prompt": "", "stop": list("abcde")}, "stop", "at most 4"),
    (completion_request, {"prompt": "", "stream": 1}, "stream", "true or false"),
    (completion_request, {"prompt": "", "stream_options": {}}, "stream_options", "without stream=true"),
    (completion_request, {"prompt": "", "temprature": 1}, "temprature", "did you mean 'temperature'?"),
    (completion_request, {"prompt": "", "messages": []}, "messages", "unknown parameter"),
    (chat_request, {}, "messages", "missing or null"),
    (chat_request, {"messages": []}, "messages", "at least one"),
    (chat_request, {"messages": ["你好"]}, "messages[0]", "an object with role and content"),
    (chat_request, {"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", "'tool'"),
    (chat_request, {"messages": [{"role": "user"}]}, "messages[0].content", "a text is expected"),
    (
        chat_request,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0]",
        "'image_url'; only parts of type 'text'",
    ),
    (chat_request, {**CHAT, "tools": [{}]}, "tools", "not supported"),
    (chat_request, {**CHAT, "logprobs": True}, "logprobs", "logprobs=true is not supported"),
    (chat_request, {**CHAT, "response_format": {"type": "json_object"}}, "response_format", "not supported"),
    (chat_request, {**CHAT, "max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", "two names of one limit"),
]


@pytest.mark.parametrize(("read", "body", "parameter", "words"), WRONG)
def test_what_is_wrong_is_named_with_what_was_found_and_the_rule(
    read: Callable[[dict[str, Any]], Any], body: dict[str, Any], parameter: str, words: str
) -> None:
    with pytest.raises(RequestError) as refused:
        read(body)
    assert refused.value.parameter == parameter
    assert refused.value.status == 400
    assert words in str(refused.value)
    assert json.loads(json_bytes(refused.value.body()))["error"]["param"] == parameter


def test_texts_are_one_or_many_up_to_the_limit() -> None:
    assert classify_request({"texts": "一"}, 3).texts == ("一",)
    assert classify_request({"texts": ["一", " 二"]}, 3).texts == ("一", " 二")
    for texts, words in (
        ([], "at least one"),
        (["一"] * 4, "at most 3"),
        (["一", 2], "texts[1]"),
        (["一", "\n"], "texts[1] is empty"),
        (None, "missing"),
    ):
        with pytest.raises(RequestError, match="texts") as refused:
            classify_request({"texts": texts}, 3)
        assert words in str(refused.value) or refused.value.parameter == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON: Expecting value at line 1, column 1"),
        (b'{"prompt": "a"', "not JSON"),
        (b"\xff\xfe", "not UTF-8: byte 0 is 0xff"),
        (b"[1, 2]", "holds a list of 2; an object"),
        (b'{"temperature": NaN}', "holds NaN, which is not JSON"),
        (b'{"seed": ' + b"9" * 6000 + b"}", "not JSON that can be read"),
        (b"[" * 200_000, "not JSON"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_object(body)
    assert words in str(refused.value)


def test_a_strange_name_in_a_request_can_be_told_back() -> None:
    with pytest.raises(RequestError) as refused:
        completion_request({"prompt": "", "\ud800": 1})
    assert json.loads(json_bytes(refused.value.body()).decode("utf-8"))["error"]["param"] == "\ud800"
