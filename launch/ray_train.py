"""Pretrain a decoder on the workers of a Ray cluster.

python launch/ray_train.py --deepspeed ds_configs/zero3.json --config launch/runs/NAME.yaml --workers 2 [--gpus]
    [--address HOST:PORT] [--max_failures 3] [--section.key value ...]
"""

from megadec.common.errors import run_main
from megadec.ray.train import main

if __name__ == "__main__":
    run_main(main)
