"""What the service allows, and how it says no.

Every refusal is made before anything is computed, so a request that was let in can only end early by time, by shutdown
or by a defect.
"""

from dataclasses import dataclass
from typing import Any

from megadec.common.errors import InputError, check_range


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    max_position_embeddings: most tokens of a prompt and its answer together; 0 is the model's context, the most
    possible. answer_tokens: most tokens of an answer for which the request names no number; 0 fills the context.
    body_bytes: most bytes of a request's body. texts: most texts of one classification or embedding. sequences: most
    answers of one request, over all its prompts. running: requests computed at the same time. cache_bytes: of keys
    and values of all of them in our own decoder, at least those of one context. waiting: requests that wait for one
    of these places. connections: that are open at the same time, fewer where the process may open fewer files.
    read_seconds: for a client to send a request's headers, and its body. request_seconds: from the arrival of a
    request to the end of its answer. grace_seconds: at shutdown, for answers to go on.
    """

    max_position_embeddings: int = 0
    answer_tokens: int = 512
    body_bytes: int = 2**20
    texts: int = 256
    sequences: int = 128
    running: int = 32
    cache_bytes: int = 2**30
    waiting: int = 64
    connections: int = 512
    read_seconds: float = 30.0
    request_seconds: float = 300.0
    grace_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_range(
            self, "limits.", "body_bytes", "texts", "sequences", "running", "cache_bytes", "connections", least=1
        )
        check_range(self, "limits.", "max_position_embeddings", "answer_tokens", "waiting", least=0)
        check_range(self, "limits.", "request_seconds", "grace_seconds", least=0)
        check_range(self, "limits.", "read_seconds", above=0)


@dataclass(eq=False)
class RequestError(InputError):
    """A request that is refused or could not be finished, as a client sees it."""

    message: str
    status: int = 400
    code: str | None = "invalid_value"
    parameter: str | None = None
    retry_after_seconds: int | None = None

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """The error object of OpenAI's API."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}
