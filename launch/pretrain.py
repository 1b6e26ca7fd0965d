"""Pretrain a decoder.

deepspeed launch/pretrain.py --deepspeed ds_configs/zero3.json --config launch/runs/NAME.yaml [--section.key value ...]
"""

from megadec.common.errors import run_main
from megadec.pretrain.command import pretrain

if __name__ == "__main__":
    run_main(pretrain)
