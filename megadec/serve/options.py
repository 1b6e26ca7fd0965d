"""What the command serve takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megadec.common.errors import ConfigError, check_range
from megadec.serve.access import Access
from megadec.serve.limits import Limits


@dataclass(frozen=True)
class ServeOptions:
    """model: an exported folder (Hugging Face, megadec, GGUF, ONNX), a run or a checkpoint that continues text.

    classifier: a fine-tuned classifier's folder, run or checkpoint. At least one of the two is needed.
    name: what clients call the model; the folder's own name when left out.
    host, port: where to listen; port 0 takes a free one. The default host answers this machine only.
    dtype: of the weights of a Hugging Face or megadec folder; int8 is for a language model on the CPU. device: such as
    cpu or cuda; without, cuda where there is one. Both are for the model and the classifier.
    """

    model: Path | None = None
    classifier: Path | None = None
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    device: str | None = None
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        if self.model is None and self.classifier is None:
            raise ConfigError("--model and --classifier are both missing; a server needs at least one of them")
        check_range(self, "--", "port", least=0, most=65535)
