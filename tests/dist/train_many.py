"""A rank of several short trainings, one after the other in one process: imports cost more than they do.

Arguments: a JSON file with a list of {"run": YAML, "deepspeed": FILE, "options": [...]}, done in order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from megadec.common.config import parse
from megadec.engine.interrupt import Interrupt
from megadec.engine.loop import train_job
from megadec.engine.run import Run, open_run
from megadec.engine.zero import end_process_group, start_process_group


def main(plan: Path) -> None:
    ranks = start_process_group()
    for training in json.loads(plan.read_text()):
        run = parse(Run, ["--config", training["run"], *training.get("options", [])], description="a test")
        with Interrupt() as interrupt:
            train_job(open_run(run, Path(training["deepspeed"])), ranks, interrupt)
    end_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
