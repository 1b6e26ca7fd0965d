"""Clients that mean harm or send nonsense, and a chat template that does not end: the service answers the others."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megadec.export.read.megadec import to_megadec
from tests.support.services import PATIENCE_SECONDS, Server, post, reciting_source, serving
from tests.support.sources import random_classifier

pytest.importorskip("starlette")

OPEN_FILES = 256
READ_SECONDS = 6.0
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}。{% if message.content == 'LOOP' %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}{% endfor %}"
)
LOOP = {"messages": [{"role": "user", "content": "LOOP"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_path: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    to_megadec(reciting_source(tiny_tokenizer_path), folder / "tiny")
    (folder / "tiny" / "chat_template.jinja").write_text(TEMPLATE)
    to_megadec(random_classifier(tiny_tokenizer_path, {"sequence_length": 20}), folder / "labels")
    options = [
        "--classifier",
        str(folder / "labels"),
        "--dtype",
        "bfloat16",
        "--access.origins",
        "https://ours.example",
    ]
    limits = ["--limits.read_seconds", str(READ_SECONDS), "--limits.grace_seconds", "0.5"]
    with serving(folder / "tiny", folder / "log", *options, *limits, open_files=OPEN_FILES) as started:
        yield started
        assert started.process.poll() in (None, 0), started.log.read_text()
        assert "Traceback" not in started.log.read_text()


def test_half_sent_requests_take_no_place_from_whole_ones_and_end(server: Server) -> None:
    begun = [
        b"",
        b"GET /healthz HTT",
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
    ]
    logged = server.log.stat().st_size
    kept = server.connect(begun[1])
    halves = [server.connect(begun[number % len(begun)]) for number in range(400)]
    began = time.monotonic()
    assert server.ask("/healthz")[0] == 200
    assert server.ask("/v1/completions", b'{"prompt": "", "max_tokens": 3}')[0] == 200
    assert time.monotonic() - began < READ_SECONDS, "nobody waited for a deadline"
    assert kept.recv(99) == b"", "the oldest made room"
    for half in halves:
        half.settimeout(PATIENCE_SECONDS)
    ends = {half.recv(12) for half in halves}
    assert ends <= {b"", b"HTTP/1.1 408"}
    assert b"HTTP/1.1 408" in ends, "the youngest were told"
    for half in [kept, *halves]:
        half.close()
    server.until_idle()
    assert server.log.stat().st_size - logged < 10_000


def test_a_request_that_dribbles_is_ended(server: Server) -> None:
    with server.connect(b"GET /healthz HTTP/1.1\r\n") as connection:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < PATIENCE_SECONDS:
                connection.sendall(b"x: y\r\n")
                time.sleep(READ_SECONDS / 8)
        assert time.monotonic() - began < 3 * READ_SECONDS


def complete(**body: Any) -> dict[str, Any]:
    return {"prompt": "。", "max_tokens": 2, **body}


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


HUGE, DEEP = 10**400, nested(150)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, HUGE, -HUGE, 0.5, 5e-324, 1e-320, 1.7e308, "", "1", "𠮷" * 50, [], [1], [""], [None],
    [HUGE], ["a", 1], {}, {"a": 1}, DEEP,
)  # fmt: skip
NUMBERS = ("max_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "n", "presence_penalty")
OTHERS = (
    "model",
    "stop",
    "stream",
    "stream_options",
    "prompt",
    "logit_bias",
    "user",
    "tools",
    "no_such_name",
)
CHATS = [
    {"messages": value} for value in VALUES
] + [
    {"messages": [{"role": role, "content": content}]}
    for role, content in [("user", value) for value in VALUES] + [(value, "一") for value in VALUES]
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        *[("/v1/completions", [complete(**{name: value}) for value in VALUES]) for name in NUMBERS + OTHERS],
        ("/v1/completions", [complete(temperature=1e-320, repetition_penalty=0.01, top_p=5e-324, top_k=2**31 - 1)]),
        ("/v1/chat/completions", [{**chat, "max_tokens": 1} for chat in CHATS]),
        ("/v1/classify", [{"texts": value} for value in VALUES]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_value_of_a_request_is_more_than_a_refusal(server: Server, path: str, bodies: list[Any]) -> None:
    for body in bodies:
        status, _, answer = server.ask(path, json.dumps(body).encode())
        assert status == 200 or 400 <= status < 500, (body, answer)
        assert status == 200 or answer["error"]["message"], body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"prompt": "", "temperature": NaN}',
        b'{"prompt": "", "temperature": Infinity}',
        b'{"prompt": "", "temperature": 1e999}',
        b'{"prompt": "", "seed": ' + b"9" * 4000 + b"}",
        rb'{"prompt": "\ud800"}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\x00"}',
        b'{"prompt": "", "prompt": 5}',
        b'{"": ""}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_no_body_is_more_than_a_refusal(server: Server, body: bytes) -> None:
    status, _, answer = server.ask("/v1/completions", body)
    assert (status, bool(answer["error"]["message"])) == (400, True)


def test_a_page_of_elsewhere_and_a_name_that_is_not_ours_are_refused(server: Server) -> None:
    body, own = json.dumps(complete()).encode(), f"127.0.0.1:{server.port}"
    for headers, status, code in (
        ({}, 200, None),
        ({"Host": f"localhost:{server.port}", "Origin": f"http://localhost:{server.port}"}, 200, None),
        ({"Host": "[::1]:80", "Origin": "http://[::1]:80"}, 200, None),
        ({"Origin": f"http://{own}"}, 200, None),
        ({"Origin": "https://ours.example"}, 200, None),
        ({"Origin": "https://ours.example:444"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
        ({"Origin": "http://evil.example", "Content-Type": "text/plain"}, 403, "origin_not_allowed"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403, "host_not_allowed"),
        ({"Host": "127.0.0.1.evil.example"}, 403, "host_not_allowed"),
        ({"Host": "@["}, 403, "host_not_allowed"),
    ):
        found, said, answer = server.ask("/v1/completions", body, **headers)
        assert (found, answer.get("error", {}).get("code")) == (status, code), headers
        if status == 403:
            assert "--access." in answer["error"]["message"]
        if headers.get("Origin") == "https://ours.example":
            assert said["access-control-allow-origin"] == "https://ours.example"
    asked = {"Origin": "https://ours.example", "Access-Control-Request-Method": "POST"}
    assert server.ask("/v1/completions", method="OPTIONS", **asked)[0] == 200


def test_a_method_that_a_route_does_not_take_is_told_those_that_it_takes(server: Server) -> None:
    for method, path, allowed in (("GET", "/v1/completions", "POST"), ("DELETE", "/v1/models", "GET, HEAD")):
        status, headers, answer = server.ask(path, method=method)
        assert (status, set(headers["allow"].split(", "))) == (405, set(allowed.split(", ")))
        assert answer["error"]["message"].startswith(f"{path} does not take {method}; it takes ")


def test_a_text_that_is_cut_is_said_to_be(server: Server) -> None:
    before = server.metric("megadec_truncated_texts_total")
    status, _, answer = server.ask("/v1/classify", json.dumps({"texts": ["短", "长" * 200]}).encode())
    assert (status, [one["truncated"] for one in answer["data"]]) == (200, [False, True])
    assert all(sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-3) for one in answer["data"])
    assert server.metric("megadec_truncated_texts_total") - before == 1


def test_a_template_that_does_not_end_holds_up_nobody_and_is_refused(server: Server) -> None:
    with server.connect(post("/v1/chat/completions", LOOP)) as connection:
        assert server.ask("/healthz")[0] == 200
        assert server.ask("/v1/completions", json.dumps(complete()).encode())[0] == 200
        said = b""
        while not said.endswith(b"}}"):
            said += connection.recv(4096)
        assert said.startswith(b"HTTP/1.1 400"), said
        assert b"does not end within 1 second" in said
    chat = {**LOOP, "messages": [{"role": "user", "content": "。"}]}
    assert server.ask("/v1/chat/completions", json.dumps(chat).encode())[0] == 200


def test_at_last_a_signal_ends_the_server_while_a_template_loops(server: Server) -> None:
    connections = [server.connect(post("/v1/chat/completions", LOOP)) for _ in range(20)]
    server.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert time.monotonic() - began < 20
    for connection in connections:
        connection.close()
