"""Pretrain a decoder.

deepspeed launch/pretrain.py --deepspeed ds_configs/zero3.json --config launch/runs/NAME.yaml [--section.key value ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megadec.common.errors import run_main

if TYPE_CHECKING:
    from megadec.engine.job import Job
    from megadec.engine.run import Run


def main(argv: Sequence[str]) -> None:
    """Arguments in, `megadec.engine.run.open_run` and training, nothing out: results are in the run's folder."""
    from megadec.engine.command import train_command
    from megadec.engine.run import Run

    train_command(argv, Run, _open, description=__doc__ or "", program="launch/pretrain.py")


def _open(run: Run, deepspeed_file: Path) -> Job:
    from megadec.engine.run import open_run

    if run.model.initial is None:
        return open_run(run, deepspeed_file)
    from megadec.export.consolidate import open_model

    return open_run(run, deepspeed_file, open_model(Path(run.model.initial)))


if __name__ == "__main__":
    run_main(main)
