"""The token budget of a data card or a run: what so many tokens of training see of each source.

    python tools/mix.py --card mix.yaml --tokens 10B --data.sequence_length 4096 --train.global_batch_size 256
    python tools/mix.py --config launch/runs/zh_base.yaml

In: a data card, or the run file of a pretraining (its stages too), and how long it trains. Out: tokens, share, epochs
and documents of each source, with warnings, as a table or as JSON with --json true.
"""

from megadec.common.errors import run_main
from megadec.plan.mix import main

if __name__ == "__main__":
    run_main(main)
