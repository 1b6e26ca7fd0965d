"""The service as its clients see it: a real server process, OpenAI's own client, and clients that behave badly."""

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError
from megadec.decoding.generate import generate_text
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from megadec.export.read.load import load_source
from megadec.export.read.megadec import to_megadec
from megadec.export.read.source import ModelSource
from tests.support.processes import wait_until
from tests.support.services import CONTEXT_TOKENS, PATIENCE_SECONDS, RECITED, Server, post, reciting_source, serving

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")

RUNNING, WAITING = 16, 4
BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def source(tiny_tokenizer_path: Path) -> ModelSource:
    return reciting_source(tiny_tokenizer_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, source: ModelSource) -> Path:
    path = tmp_path_factory.mktemp("served") / "tiny"
    to_megadec(source, path)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Server]:
    limits = {
        "running": RUNNING,
        "waiting": WAITING,
        "body_bytes": BODY_BYTES,
        "grace_seconds": 0.5,
    }
    options = [word for name, value in limits.items() for word in (f"--limits.{name}", str(value))]
    with serving(folder, tmp_path_factory.mktemp("log") / "server.log", *options) as started:
        yield started
        assert started.process.poll() in (None, 0), started.log.read_text()
        assert "Traceback" not in started.log.read_text()


ENDLESS = {"prompt": "。", "max_tokens": CONTEXT_TOKENS - 100, "temperature": 0}


def streamed(chunks: Any) -> tuple[str, list[str], str | None, Any]:
    """(text, its pieces, why it ended, usage) of a stream of either kind."""
    pieces, reason, usage = [], None, None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append((choice.delta.content if hasattr(choice, "delta") else choice.text) or "")
            reason = choice.finish_reason or reason
    return "".join(pieces), pieces, reason, usage


def test_a_completion_is_the_text_of_the_command_line(server: Server, source: ModelSource) -> None:
    decoder, tokenizer = load_source(source)
    model = PagedDecoder(decoder)
    for seed in (1, 2):
        wanted = "".join(generate_text(model, tokenizer, "小林。", Sampling(30, 1.0, top_p=0.9, seed=seed)))
        found = server.client.completions.create(
            model="tiny", prompt="小林。", max_tokens=30, temperature=1.0, top_p=0.9, seed=seed
        )
        assert found.choices[0].text == wanted
        assert found.usage.prompt_tokens == 1 + len(tokenizer.encode("小林。"))
        assert found.usage.completion_tokens <= 30


def test_a_streamed_answer_is_the_unstreamed_one(server: Server) -> None:
    client = server.client
    how = {"model": "tiny", "max_tokens": 60, "temperature": 1.0, "seed": 5}
    chat = {**how, "messages": [{"role": "user", "content": "你好。"}]}
    whole = client.chat.completions.create(**chat)
    parts = client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True})
    found, _, reason, usage = streamed(parts)
    assert (found, reason) == (whole.choices[0].message.content, whole.choices[0].finish_reason)
    assert usage == whole.usage
    whole_text = client.completions.create(**how, prompt="。")
    found, _, reason, _ = streamed(client.completions.create(**how, prompt="。", stream=True))
    assert (found, reason) == (whole_text.choices[0].text, whole_text.choices[0].finish_reason)


def test_a_stream_holds_whole_characters_only(server: Server) -> None:
    chunks = server.client.completions.create(model="tiny", prompt="。", max_tokens=45, temperature=0, stream=True)
    text, pieces, reason, _ = streamed(chunks)
    assert text == (RECITED * 5)[: len(text)]
    assert [piece for piece in pieces if piece] == list(RECITED * 5)
    assert reason == "length"


def test_sixteen_clients_at_once_get_what_each_would_get_alone(server: Server) -> None:
    def ask(seed: int) -> str:
        chunks = server.client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": f"第{seed}个。"}],
            max_tokens=40,
            temperature=1.0,
            seed=seed,
            stream=seed % 2 == 0,
        )
        return streamed(chunks)[0] if seed % 2 == 0 else chunks.choices[0].message.content

    with ThreadPoolExecutor(RUNNING) as pool:
        together = list(pool.map(ask, range(RUNNING)))
    assert together == [ask(seed) for seed in range(RUNNING)]
    assert len(set(together)) > RUNNING // 2


def test_a_client_that_leaves_frees_its_place_at_once(server: Server) -> None:
    for stream in (True, False):
        connection = server.connect(post("/v1/completions", {**ENDLESS, "stream": stream}))
        if stream:
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
        wait_until(lambda: server.ask("/healthz")[2]["running"] == 1, "the request")
        before = server.metric("megadec_generated_tokens_total")
        connection.close()
        server.until_idle()
        assert server.metric("megadec_generated_tokens_total") - before < ENDLESS["max_tokens"] / 2


def test_a_full_queue_refuses_and_is_open_again_when_clients_have_left(server: Server) -> None:
    request = post("/v1/completions", {**ENDLESS, "stream": True})
    connections = [server.connect(request) for _ in range(RUNNING + WAITING)]
    full = {"status": "ok", "running": RUNNING, "waiting": WAITING}
    wait_until(lambda: server.ask("/healthz")[2] == full, "a full queue")
    assert server.metric("megadec_queue_length") == WAITING
    status, headers, body = server.ask("/v1/completions", json.dumps(ENDLESS).encode())
    assert (status, body["error"]["code"]) == (503, "queue_full")
    assert int(headers["retry-after"]) >= 1
    with pytest.raises(openai.InternalServerError, match="busy"):
        server.client.completions.create(model="tiny", prompt="。")
    for connection in connections:
        connection.close()
    server.until_idle()
    assert server.client.completions.create(model="tiny", prompt="。", max_tokens=3).choices[0].text is not None


def test_a_body_over_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    declared = server.connect(
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n{"
    )
    assert declared.recv(12) == b"HTTP/1.1 413"
    declared.close()
    undeclared = server.connect(
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with pytest.raises((BrokenPipeError, ConnectionResetError, TimeoutError)):
        undeclared.settimeout(60)
        for _ in range(20_000):
            undeclared.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
    undeclared.close()
    with pytest.raises(openai.APIStatusError, match="at most 100000") as refused:
        server.client.completions.create(model="tiny", prompt="字" * BODY_BYTES)
    assert refused.value.status_code == 413
    server.until_idle()


def test_what_is_wrong_with_a_request_is_named_to_the_client(server: Server) -> None:
    ask = server.client.completions.create
    with pytest.raises(openai.BadRequestError, match="id 1000000 is not one of the model's 600 ids") as refused:
        ask(model="tiny", prompt=[10**6])
    assert refused.value.param == "prompt"
    with pytest.raises(openai.NotFoundError, match="'other' is not served here; this route serves 'tiny'"):
        ask(model="other", prompt="。")
    status, _, answer = server.ask("/v1/chat/completions", b"\xff")
    assert (status, "not JSON in UTF-8" in answer["error"]["message"]) == (400, True)
    assert server.ask("/v1/nothing")[0] == 404
    assert server.ask("/v1/completions")[0] == 405


def test_requests_and_tokens_are_counted(server: Server) -> None:
    route = 'megadec_requests_total{route="/v1/completions",status="200"}'
    names = (route, "megadec_generated_tokens_total", "megadec_time_to_first_token_seconds_count")
    before = [server.metric(name) for name in names]
    server.client.completions.create(model="tiny", prompt="。", max_tokens=7, temperature=0)
    assert [server.metric(name) - old for name, old in zip(names, before, strict=True)] == [1, 7, 1]
    assert server.metric("megadec_requests_in_flight") == 1, "the request for the metrics itself"


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    status, headers, page = server.ask("/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert set(re.findall(r"https?://[^'\"\s]+", page)) <= {"http://www.w3.org/2000/svg"}


def test_a_port_in_use_is_refused_before_the_model_is_opened(server: Server) -> None:
    with pytest.raises(ConfigError, match=f"--port={server.port} is used by another program"):
        run_verb(["serve", "--model", "none", "--port", str(server.port)])


def test_at_last_a_signal_ends_the_server_within_the_grace_time(server: Server) -> None:
    with server.connect(post("/v1/completions", {**ENDLESS, "stream": True})) as connection:
        assert connection.recv(20).startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert b"shutting down" in received or b'"finish_reason":"length"' in received
