"""Fine-tune a pretrained decoder to classify texts.

deepspeed launch/finetune.py --deepspeed ds_configs/zero2.json --config launch/runs/thucnews.yaml
    [--method full|frozen|lora|scratch] [--section.key value ...]
"""

from __future__ import annotations

from collections.abc import Sequence

from megadec.common.errors import run_main


def main(argv: Sequence[str]) -> None:
    """Arguments in, `finetune.task.open_finetune` and training, nothing out: results are in the run's folder."""
    from megadec.engine.command import train_command
    from megadec.finetune.task import FineTuneRun, open_finetune

    train_command(argv, FineTuneRun, open_finetune, description=__doc__ or "", program="launch/finetune.py")


if __name__ == "__main__":
    run_main(main)
