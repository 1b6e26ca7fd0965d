"""Below the framework: a body within its limit, a client that goes, and what escapes from a route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest

from megadec.serve import asgi
from megadec.serve.asgi import ClientGone, EventStream, Guard, json_response, read_body, refusal, unless_gone
from megadec.serve.limits import RequestError

SCOPE = {"type": "http", "method": "POST", "path": "/a", "headers": []}
GONE = {"type": "http.disconnect"}


class Client:
    """Gives the messages of a client, then waits for ever; notes what it was sent."""

    def __init__(self, messages: Iterable[dict[str, Any]] = ()) -> None:
        self.messages = list(messages)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_comes_in_parts_up_to_the_limit() -> None:
    assert asyncio.run(read_body(SCOPE, Client([part(b"ab"), part(b"cd", False)]).receive, 4)) == b"abcd"


def test_a_body_is_refused_at_the_first_byte_too_many() -> None:
    client = Client([part(b"abc"), part(b"de"), part(b"never read")])
    with pytest.raises(RequestError, match="has 5 bytes or more; this server reads at most 4") as refused:
        asyncio.run(read_body(SCOPE, client.receive, 4))
    assert refused.value.status == 413
    assert client.messages == [part(b"never read")]


def test_a_body_that_says_it_is_too_large_is_not_read_at_all() -> None:
    client = Client([part(b"a")])
    with pytest.raises(RequestError, match="99 bytes"):
        asyncio.run(read_body({**SCOPE, "headers": [(b"content-length", b"99")]}, client.receive, 4))
    assert len(client.messages) == 1


def test_a_client_that_goes_while_it_sends_is_gone() -> None:
    with pytest.raises(ClientGone):
        asyncio.run(read_body(SCOPE, Client([part(b"a"), GONE]).receive, 4))


def test_work_ends_with_the_client_that_wanted_it() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    with pytest.raises(ClientGone):
        asyncio.run(unless_gone(work(), Client([GONE]).receive))
    assert ended


def test_work_that_is_done_or_fails_is_what_it_is() -> None:
    async def work(fails: bool) -> int:
        if fails:
            raise RequestError("no")
        return 5

    assert asyncio.run(unless_gone(work(False), Client().receive)) == 5
    with pytest.raises(RequestError, match="no"):
        asyncio.run(unless_gone(work(True), Client().receive))


def test_a_stream_to_a_client_that_reads_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "STALLED_SECONDS", 0.05)
    closed = False

    async def events() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            while True:
                yield b"data"
        finally:
            closed = True

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        asyncio.run(EventStream(events())(SCOPE, Client().receive, send))
    assert closed


def guarded(app: Any, client: Client) -> list[tuple[str, int]]:
    """What was counted for one request to `app`."""
    counted: list[tuple[str, int]] = []
    guard = Guard(
        app, routes={"/a"}, begins=lambda: 1.0, ends=lambda route, status, began: counted.append((route, status))
    )
    asyncio.run(guard(dict(SCOPE), client.receive, client.send))
    return counted


def test_an_answer_is_counted_by_route_and_status() -> None:
    client = Client()
    assert guarded(json_response({"a": "字"}, 202), client) == [("/a", 202)]
    assert json.loads(client.body) == {"a": "字"}


def test_what_escapes_from_a_route_is_an_answer_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret")

    client = Client()
    assert guarded(broken, client) == [("/a", 500)]
    assert client.status == 500
    assert b"secret" not in client.body


def test_a_client_that_goes_is_counted_as_gone() -> None:
    async def gone(scope: Any, receive: Any, send: Any) -> None:
        raise ClientGone

    assert guarded(gone, Client()) == [("/a", 499)]


def test_a_refusal_says_when_to_come_back() -> None:
    client = Client()
    guarded(refusal(RequestError("busy", status=503, retry_after_seconds=7)), client)
    assert (b"retry-after", b"7") in client.sent[0]["headers"]
    assert json.loads(client.body)["error"] == {"message": "busy", "type": "server_error", "param": None, "code": None}


def test_behind_a_refused_body_a_little_more_is_read() -> None:
    """A client that still sends would otherwise see its connection broken and not the answer."""
    client = Client([part(b"x" * 1000), part(b"y", False)])
    guarded(refusal(RequestError("large", status=413)), client)
    assert client.messages == []
    assert (b"connection", b"close") in client.sent[0]["headers"]
