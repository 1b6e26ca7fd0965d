"""The command line that every rank of a training runs, whatever is trained.

In come the arguments that a launcher passes on, a run's dataclass and what opens it; nothing comes out: results are in
the run's folder. All ranks parse and check the same request, so an error is known before they have met, and only rank 0
says it.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from megadec.common.config import parse, take_options
from megadec.common.errors import ConfigError, MegadecError
from megadec.common.log import logger
from megadec.common.ranks import adopt_launcher, is_first
from megadec.engine.health.preemption import Interrupt
from megadec.engine.runs.common import CommonRun, Job

R = TypeVar("R", bound=CommonRun)

RANK_0_SPEAKS_SECONDS = 20.0

log = logger(__name__)


def train_command(
    argv: Sequence[str], kind: type[R], open_job: Callable[[R, Path], Job], *, description: str, program: str
) -> None:
    """Parse `argv` as a run of this kind with `--deepspeed FILE`, open it, train it. Raises MegadecError."""
    placed = adopt_launcher()
    options, rest = take_options(argv, ("deepspeed", "local_rank"))  # the launcher passes --local_rank
    try:
        described = f"{description} --deepspeed FILE is needed beside these options; ds_configs/README.md says which."
        run = parse(kind, rest, description=described, program=program)
        if "deepspeed" not in options:
            raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
        if placed:
            log.info(placed)
        with Interrupt() as interrupt:
            job = open_job(run, Path(options["deepspeed"]))
            # These import torch and DeepSpeed, which takes seconds: only a request that is right waits for them.
            if is_first():
                log.info("the request is right; loading torch and DeepSpeed")
            from megadec.engine.loop import train
            from megadec.engine.zero.engine import end_process_group, start_process_group

            ranks = start_process_group()
            train(job, interrupt, ranks)
            end_process_group(ranks)
    except MegadecError:
        if not is_first():
            # Rank 0 has met the same error and says it; the launcher then ends this process. If it has not, we speak.
            time.sleep(RANK_0_SPEAKS_SECONDS)
        raise


def seq2seq(argv: Sequence[str]) -> None:
    """Train an encoder-decoder as one rank of a launcher."""
    from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run

    description = "Train an encoder-decoder on pairs."
    train_command(argv, PairsRun, open_pairs_run, description=description, program="launch/seq2seq.py")
