"""Send a command to a Ray cluster, follow its log, and end with its status.

python launch/submit.py --address http://HOST:8265 [--working_dir FOLDER] [--env KEY=VALUE ...] [--python python]
    -- launch/ray_train.py --deepspeed ds_configs/zero3.json --config launch/runs/NAME.yaml --workers 2
"""

from megadec.common.errors import run_main
from megadec.ray.submit import main

if __name__ == "__main__":
    run_main(main)
