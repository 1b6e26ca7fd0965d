"""Which metrics a run keeps, and where they go."""

from dataclasses import dataclass

from megadec.common.errors import check_range

FILE_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class MetricsOptions:
    """Where the figures of metrics.jsonl go beside the file.

    tensorboard: write TensorBoard events into the run's folder.
    wandb, swanlab: log to Weights & Biases or SwanLab; each is an extra. Without a key on the machine of rank 0, or
        where the service is not reached, the figures stay in the run's folder for `wandb sync` or `swanlab sync`.
    project: the project name on those two.
    offline: they write to the run's folder and need no network.
    progress_seconds: without a terminal, a line of progress at most every so many seconds.
    peak_flops: operations a second of one device at its peak, for `mfu`; known for common GPUs, unknown on a CPU.
    """

    tensorboard: bool = True
    wandb: bool = False
    swanlab: bool = False
    project: str = "megadec"
    offline: bool = False
    progress_seconds: float = 30.0
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        check_range(self, "metrics.", "peak_flops", above=0)
        check_range(self, "metrics.", "progress_seconds", least=0)
