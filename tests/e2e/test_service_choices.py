"""Several prompts, several choices and log-probabilities, as OpenAI's client and an evaluation harness ask for them."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.tokenizer import Tokenizer
from megadec.export.read.load import load_source
from megadec.export.read.megadec import to_megadec
from megadec.export.read.source import ModelSource
from tests.support.services import Server, serving
from tests.support.sources import random_source

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")

PROMPTS = ["小林在河边", "清晨。", "后来，老周𠮷"]


@pytest.fixture(scope="module")
def source(tiny_tokenizer_path: Path) -> ModelSource:
    return random_source(tiny_tokenizer_path, max_position_embeddings=256)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, source: ModelSource) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    to_megadec(source, folder)
    with serving(folder, tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started
        assert "Traceback" not in started.log.read_text()


def complete(server: Server, **body: Any) -> Any:
    return server.client.completions.create(model="tiny", **{"max_tokens": 12, "temperature": 0.9, "seed": 3, **body})


def ask(server: Server, path: str, body: Any) -> tuple[int, Any]:
    status, _, answer = server.ask(path, json.dumps(body).encode())
    return status, answer


def test_a_list_of_prompts_gives_the_texts_of_each_alone_in_their_order(server: Server, tokenizer: Tokenizer) -> None:
    alone = [complete(server, prompt=prompt).choices[0].text for prompt in PROMPTS]
    together = complete(server, prompt=PROMPTS)
    assert [choice.text for choice in together.choices] == alone
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    ids = [tokenizer.prompt_ids(prompt) for prompt in PROMPTS]
    assert [choice.text for choice in complete(server, prompt=ids).choices] == alone
    assert together.usage.prompt_tokens == sum(map(len, ids))


def test_choice_i_is_drawn_with_seed_plus_i_streamed_or_not(server: Server) -> None:
    alone = [complete(server, prompt=PROMPTS[0], seed=3 + place).choices[0].text for place in range(3)]
    several = complete(server, prompt=[PROMPTS[0]], n=3)
    assert [choice.text for choice in several.choices] == alone
    assert several.usage.completion_tokens <= 36
    texts, ends = Counter[int](), dict[int, str]()
    streamed: dict[int, str] = {}
    for chunk in complete(server, prompt=PROMPTS[:2], n=2, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + choice.text
            texts[choice.index] += 1
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    whole = complete(server, prompt=PROMPTS[:2], n=2)
    assert [streamed[place] for place in range(4)] == [choice.text for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert max(texts.values()) > 2
    assert chunk.usage == whole.usage


def test_best_of_gives_the_likeliest_by_token(server: Server) -> None:
    all_of = complete(server, prompt=PROMPTS[0], n=6, logprobs=0, extra_body={"ignore_eos": True}).choices
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs) for choice in all_of]
    best = complete(server, prompt=PROMPTS[0], n=2, best_of=6, extra_body={"ignore_eos": True})
    likeliest = sorted(range(6), key=lambda place: -means[place])[:2]
    assert [choice.text for choice in best.choices] == [all_of[place].text for place in likeliest]
    assert best.usage.completion_tokens == 72


def test_an_echo_with_logprobs_scores_the_prompt_as_the_model_does(
    server: Server, source: ModelSource, tokenizer: Tokenizer
) -> None:
    """What lm-evaluation-harness asks for: ids, echo, one likeliest token, one token generated or none."""
    rows = [tokenizer.prompt_ids(prompt) for prompt in PROMPTS]
    decoder, _ = load_source(source)
    for most in (0, 1):
        found = complete(server, prompt=rows, echo=True, logprobs=1, max_tokens=most, temperature=0)
        for ids, prompt, choice in zip(rows, PROMPTS, found.choices, strict=True):
            scores = choice.logprobs
            with torch.no_grad():
                wanted = decoder(torch.tensor([ids]))[0].log_softmax(-1)
            assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == len(ids) + most
            assert scores.token_logprobs[0] is None
            known = wanted[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
            assert scores.token_logprobs[1 : len(ids)] == pytest.approx(known, abs=1e-4)
            likeliest = wanted[:-1].amax(-1).tolist()
            assert [max(top.values()) for top in scores.top_logprobs[1 : len(ids)]] == pytest.approx(
                likeliest, abs=1e-4
            )
            assert choice.text.startswith(prompt)
            assert (choice.text == prompt) == (most == 0)
            assert choice.finish_reason == "length"


def test_logprobs_of_a_chat_name_each_token_with_its_bytes(server: Server) -> None:
    messages: list[Any] = [{"role": "user", "content": "你好"}]
    how: dict[str, Any] = {"model": "tiny", "messages": messages, "max_tokens": 30, "seed": 5, "temperature": 1.5}
    whole = server.client.chat.completions.create(**how, logprobs=True, top_logprobs=3).choices[0]
    content = whole.logprobs.content
    assert (
        b"".join(bytes(token.bytes) for token in content).decode("utf-8", "replace").startswith(whole.message.content)
    )
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob <= token.top_logprobs[0].logprob + 1e-6
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1 + 1e-6
        text = bytes(token.bytes).decode("utf-8", "replace")
        assert token.token == text or token.token.startswith("bytes:") or not token.bytes
    streamed = server.client.chat.completions.create(**how, logprobs=True, top_logprobs=3, stream=True)
    scored = [choice.logprobs for chunk in streamed for choice in chunk.choices if choice.logprobs]
    assert [part.token for one in scored for part in one.content] == [token.token for token in content]


def test_a_bias_decides_and_a_stop_id_ends(server: Server, tokenizer: Tokenizer) -> None:
    wanted = tokenizer.encode("河")[-1]
    found = complete(server, prompt="小林", logit_bias={str(wanted): 100}, max_tokens=4, temperature=0)
    assert found.choices[0].text == tokenizer.decode([wanted] * 4)
    found = complete(
        server, prompt="小林", logit_bias={str(wanted): 100}, max_tokens=4, extra_body={"stop_token_ids": [wanted]}
    )
    assert (found.choices[0].text, found.choices[0].finish_reason) == ("", "stop")
    penalized = complete(
        server, prompt="小林", logit_bias={str(wanted): 100}, max_tokens=4, temperature=0, presence_penalty=2.0
    )
    assert penalized.choices[0].text == tokenizer.decode([wanted] * 4)


def test_more_sequences_than_allowed_are_refused(server: Server) -> None:
    for body, parameter in (({"prompt": ["一"] * 65, "n": 2}, "prompt"), ({"prompt": ["一"] * 129}, "prompt")):
        status, answer = ask(server, "/v1/completions", body)
        assert (status, answer["error"]["param"]) == (400, parameter)
        assert "at most 128 are made" in answer["error"]["message"]


def test_texts_and_ids_are_each_other(server: Server, tokenizer: Tokenizer) -> None:
    status, found = ask(server, "/tokenize", {"prompt": "小林𠮷"})
    assert (status, found["tokens"]) == (200, tokenizer.prompt_ids("小林𠮷"))
    assert (found["count"], found["max_model_len"]) == (len(found["tokens"]), 256)
    assert ask(server, "/detokenize", {"tokens": found["tokens"]}) == (200, {"prompt": "小林𠮷"})
    status, found = ask(server, "/detokenize", {"tokens": [tokenizer.vocabulary_size]})
    assert (status, found["error"]["param"]) == (400, "tokens")


def test_an_answer_keeps_to_a_json_schema_streamed_with_others_and_byte_by_byte(server: Server) -> None:
    """A random model would else never write JSON; the characters of the schema are spelled in bytes."""
    pytest.importorskip("llguidance")
    names = ["𠮷野家", "骉"]
    schema = {
        "type": "object",
        "properties": {"名": {"enum": names}, "号": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["名", "号"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "shop", "schema": schema}}
    messages: list[Any] = [{"role": "user", "content": "店"}]
    how: dict[str, Any] = {"model": "tiny", "messages": messages, "max_tokens": 120, "temperature": 1.5, "n": 4}
    texts = ["", "", "", ""]
    for chunk in server.client.chat.completions.create(**how, seed=4, response_format=form, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            assert choice.finish_reason in (None, "stop")
    for text in texts:
        found = json.loads(text)
        assert found["名"] in names
        assert 0 <= found["号"] <= 99
    assert len(set(texts)) > 1
    status, answer = ask(
        server,
        "/v1/chat/completions",
        {
            "messages": messages,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}},
        },
    )
    assert (status, answer["error"]["param"]) == (400, "response_format")
    assert '"not"' in answer["error"]["message"]


def test_an_embedding_is_the_pooled_hidden_states(server: Server, source: ModelSource, tokenizer: Tokenizer) -> None:
    decoder, _ = load_source(source)
    states: list[torch.Tensor] = []
    handle = decoder.norm.register_forward_hook(lambda module, given, out: states.append(out.detach()[0]))
    texts = [PROMPTS[0], PROMPTS[1] * 30]
    for text in texts:
        with torch.no_grad():
            decoder(torch.tensor([tokenizer.prompt_ids(text)]))
    handle.remove()
    pooled = {"mean": [one[1:].mean(0) for one in states], "last": [one[-1] for one in states]}
    for pooling, wanted in pooled.items():
        # OpenAI's client asks for base64 by itself.
        found = server.client.embeddings.create(model="tiny", input=texts, extra_body={"pooling": pooling})
        for one, vector in zip(found.data, wanted, strict=True):
            assert one.embedding == pytest.approx((vector / vector.norm()).tolist(), abs=1e-4)
    plain = ask(server, "/v1/embeddings", {"input": texts, "pooling": "last"})[1]
    assert plain["data"][1]["embedding"] == pytest.approx(found.data[1].embedding, abs=1e-6)
    assert plain["usage"]["prompt_tokens"] == sum(len(tokenizer.prompt_ids(text)) for text in texts)
    status, answer = ask(server, "/v1/embeddings", {"input": "一", "dimensions": 7})
    assert (status, answer["error"]["param"]) == (400, "dimensions")


def test_the_asynchronous_client_gets_the_same_texts_and_streams(server: Server) -> None:
    how: dict[str, Any] = {"model": "tiny", "max_tokens": 12, "temperature": 0.9, "seed": 3}

    async def streamed(client: Any, prompt: str) -> str:
        chunks = await client.completions.create(**how, prompt=prompt, stream=True)
        return "".join([choice.text async for chunk in chunks for choice in chunk.choices])

    async def ask_all() -> tuple[Any, list[str]]:
        address = str(server.client.base_url)
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            whole = client.completions.create(**how, prompt=PROMPTS)
            parts = [streamed(client, prompt) for prompt in PROMPTS]
            found, *texts = await asyncio.gather(whole, *parts)
            return found, texts

    found, texts = asyncio.run(ask_all())
    assert [choice.text for choice in found.choices] == texts


def test_an_end_token_is_scored_so_that_an_echo_with_one_token_has_one_more_entry(
    server: Server, tokenizer: Tokenizer
) -> None:
    """lm-evaluation-harness leaves out the last entry, as the one that was generated."""
    ids = tokenizer.prompt_ids(PROMPTS[0])
    how = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    found = complete(server, prompt=[ids], logit_bias={str(tokenizer.eos_id): 100}, **how).choices[0]
    assert (found.text, found.finish_reason) == (PROMPTS[0], "stop")
    assert len(found.logprobs.token_logprobs) == len(ids) + 1
