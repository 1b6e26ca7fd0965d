"""Several ranks of a benchmark as processes of their own, on this machine.

In: a command. Out: what each rank wrote to standard output; their standard error is this process's. No launcher, so a
rank is told its place by the variables that every launcher sets.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bench.measure import ROOT
from megadec.common.errors import TrainingError
from megadec.common.processes import free_port

TIMEOUT_SECONDS = 1800.0
LOOK_SECONDS = 0.1


def run_ranks(command: Sequence[str], ranks: int, variables: Mapping[str, str] | None = None) -> list[str]:
    """Run `command` as so many ranks. variables: of their environment, beside and above this process's.

    Raises TrainingError when one fails, or none has ended in time.
    """
    common = {**os.environ, **(variables or {}), "WORLD_SIZE": str(ranks)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(ranks)]
        processes = [
            subprocess.Popen(
                command, cwd=ROOT, stdout=output, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            for rank, output in enumerate(outputs)
        ]
        wait_for(processes)
        for output in outputs:
            output.seek(0)
        return [output.read() for output in outputs]


def wait_for(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended; one that fails, or the time limit, ends all, for the others would wait for ever."""
    until = time.monotonic() + TIMEOUT_SECONDS
    try:
        while None in [process.poll() for process in processes]:  # all of them, so that each has its status
            if any(process.returncode for process in processes) or time.monotonic() > until:
                break
            time.sleep(LOOK_SECONDS)
    finally:
        statuses = [process.poll() for process in processes]
        for process in processes:
            process.kill()
            process.wait()
    if any(status != 0 for status in statuses):
        raise TrainingError(f"the ranks ended with {statuses} (None: still running); what they said stands above")
