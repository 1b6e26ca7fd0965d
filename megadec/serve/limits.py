"""What the service allows, and how it says no.

Every refusal is made before anything is computed, so a request that was let in can only end early by time, by shutdown
or by a defect.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from megadec.common.errors import ConfigError, InputError, check_range


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    max_position_embeddings: most tokens of a prompt and its answer together; 0 is the model's context, the most
    possible. answer_tokens: most tokens of an answer for which the request names no number; 0 fills the context.
    body_bytes: most bytes of a request's body. texts: most texts of one classification. running: requests computed at
    the same time, taking turns. waiting: requests that wait for one of these places. request_seconds: from the arrival
    of a request to the end of its answer. grace_seconds: at shutdown, how long answers may still go on.
    """

    max_position_embeddings: int = 0
    answer_tokens: int = 512
    body_bytes: int = 2**20
    texts: int = 256
    running: int = 16
    waiting: int = 64
    request_seconds: float = 300.0
    grace_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_range(self, "limits.", "body_bytes", "texts", "running", least=1)
        check_range(self, "limits.", "max_position_embeddings", "answer_tokens", "waiting", least=0)
        check_range(self, "limits.", "request_seconds", "grace_seconds", least=0)


@dataclass(frozen=True)
class ServeOptions:
    """model: an exported folder (Hugging Face, megadec, GGUF, ONNX), a run or a checkpoint that continues text.

    classifier: a fine-tuned classifier's folder, run or checkpoint. At least one of the two is needed.
    name: what clients call the model; the folder's own name when left out.
    host, port: where to listen; port 0 takes a free one. The default host answers this machine only.
    dtype: of the weights of a Hugging Face or megadec folder. device: such as cpu or cuda; without, cuda where there is
    one.
    """

    model: Path | None = None
    classifier: Path | None = None
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.model is None and self.classifier is None:
            raise ConfigError("--model and --classifier are both missing; a server needs at least one of them")
        check_range(self, "--", "port", least=0, most=65535)


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
