"""The section `evaluate` of a pretraining's run file: what is measured while it trains, and how often."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from megadec.common.errors import ConfigError, check_range


@dataclass(frozen=True)
class EvaluateOptions:
    """Loss and bits per character on held-out shards, and texts that the model writes, during pretraining.

    sets: name -> folder of held-out shards.
    interval_steps: evaluate every this many steps, and at the start and the end.
    windows: at most this many windows of each set, evenly spaced over it.
    micro_batch_size: sequences of one rank at a time.
    prompts: the model continues these at each evaluation; the texts go to the log, metrics.jsonl and TensorBoard.
    prompts_file: more of them, one a line.
    prompt_tokens: how many tokens each is continued by; each costs a pass through the model on all ranks.
    temperature: of their drawing; 0 takes the likeliest token. Drawn from `seed`, so texts differ as models do.
    """

    sets: dict[str, str] = field(default_factory=dict)
    interval_steps: int = 500
    windows: int = 128
    micro_batch_size: int = 8
    prompts: tuple[str, ...] = ()
    prompts_file: str | None = None
    prompt_tokens: int = 64
    temperature: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "evaluate.", "interval_steps", "windows", "micro_batch_size", "prompt_tokens", least=1)
        check_range(self, "evaluate.", "temperature", least=0, below=math.inf)

    def all_prompts(self) -> tuple[str, ...]:
        """Those of the list, then those of the file (UTF-8, empty lines left out). Raises ConfigError."""
        lines: list[str] = []
        if self.prompts_file is not None:
            try:
                lines = Path(self.prompts_file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"evaluate.prompts_file={self.prompts_file} cannot be read as UTF-8 text: {error}"
                ) from error
        return (*self.prompts, *(line for line in lines if line.strip()))
