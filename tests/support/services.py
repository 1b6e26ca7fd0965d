"""A running service: the process that a user starts, and what clients send it."""

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from megadec.common.tokenizer import Tokenizer
from megadec.export.read.source import ModelSource
from tests.support import PROJECT
from tests.support.processes import running, wait_until
from tests.support.sources import random_source

PATIENCE_SECONDS = 240.0
CONTEXT_TOKENS = 8192
# Characters of four, two and three bytes, none of them a piece of the tokenizer, no byte twice.
RECITED = "𠮷é骉"


def reciting_source(tokenizer_path: Path) -> ModelSource:
    """A model that most likely goes round RECITED byte by byte, and draws anything else at times.

    Its layers add nothing, so the state is the embedding of the last id, and the output layer maps that to the next.
    """
    source = random_source(tokenizer_path, tied_embeddings=False, max_position_embeddings=CONTEXT_TOKENS)
    tokenizer = Tokenizer.load(tokenizer_path)
    by_byte = {tokenizer.piece_bytes(i): i for i in range(tokenizer.vocabulary_size) if tokenizer.is_byte[i]}
    circle = [by_byte[bytes([byte])] for byte in RECITED.encode("utf-8")]
    tensors = source.reader.tensors  # type: ignore[attr-defined]
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name] = torch.zeros_like(tensors[name])
    embedding = torch.nn.functional.normalize(tensors["embed_tokens.weight"], dim=1)
    head = torch.zeros_like(embedding)
    for here, there in zip([*circle, circle[-1]], [*circle[1:], circle[0], circle[0]], strict=True):
        head[there] = embedding[here]
    tensors.update({"embed_tokens.weight": embedding, "lm_head.weight": head, "norm.weight": torch.ones(48)})
    # A text may begin in any way: what comes behind `<s>` or a full stop begins the circle.
    for first in (tokenizer.bos_id, *tokenizer.encode("。")):
        head[circle[0]] += embedding[first]
    return source


@dataclass
class Server:
    """A running launch/serve.py."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    @cached_property
    def client(self) -> Any:
        """OpenAI's own client."""
        import openai

        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=PATIENCE_SECONDS
        )

    def ask(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any, Any]:
        """(status, headers, JSON or text) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
            answer = connection.getresponse()
            content = answer.read().decode("utf-8")
        kind = answer.headers["content-type"] or ""
        return answer.status, answer.headers, json.loads(content) if "json" in kind else content

    def connect(self, request: bytes) -> socket.socket:
        """A connection on which `request` was sent and nothing was read."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)
        connection.sendall(request)
        return connection

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics")[2], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def until_idle(self) -> None:
        wait_until(lambda: self.ask("/healthz")[2] == {"status": "ok", "running": 0, "waiting": 0}, "idleness")


@contextmanager
def serving(folder: Path, log: Path, *options: str, open_files: int = 1024) -> Iterator[Server]:
    """A server of its own process, which may open so many files."""
    limited = ["bash", "-c", f'ulimit -n {open_files} && exec "$@"', "bash"]
    command = [sys.executable, str(PROJECT / "launch" / "serve.py"), "--model", str(folder), "--port", "0", *options]
    with running([*limited, *command], log) as process:
        address = re.compile(r"http://127\.0\.0\.1:(\d+)")
        wait_until(lambda: bool(address.search(log.read_text())) or process.poll() is not None, "the address", log)
        assert process.poll() is None, log.read_text()
        yield Server(process, log, int(address.findall(log.read_text())[0]))


def post(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
