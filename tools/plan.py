"""What a run will need: memory a rank, tokens a second, days; and which ZeRO stage, micro-batch, checkpointing to take.

    python tools/plan.py --config launch/runs/gpu_124m.yaml --deepspeed ds_configs/zero1.json --ranks 8 --device H100
    python tools/plan.py --preset 7b --ranks 8 --memory_gib 80 --device A100 --utilization 0.45 --tokens 140e9

In: a pretraining run's file with its DeepSpeed file, as launch/pretrain.py takes them (with --section.key VALUE), or a
preset; ranks and their memory; --data shards/NAME for the length of documents. Out: a table, or JSON with --json true.
"""

from megadec.common.errors import run_main
from megadec.plan.plan import main

if __name__ == "__main__":
    run_main(main)
