"""Pretrain a decoder.

deepspeed launch/pretrain.py --deepspeed ds_configs/zero3.json --config launch/runs/NAME.yaml [--section.key value ...]
"""

from __future__ import annotations

from collections.abc import Sequence

from megadec.common.errors import run_main


def main(argv: Sequence[str]) -> None:
    """Arguments in, `export.read.model.open_pretraining` and training, nothing out: results are in the run's folder."""
    from megadec.engine.command import train_command
    from megadec.engine.runs.pretrain import Run
    from megadec.export.read.model import open_pretraining

    train_command(argv, Run, open_pretraining, description=__doc__ or "", program="launch/pretrain.py")


if __name__ == "__main__":
    run_main(main)
