"""Train an encoder-decoder on pairs.

deepspeed launch/seq2seq.py --deepspeed ds_configs/zero3.json --config launch/runs/translate_transformer.yaml
    [--section.key value ...]
"""

from megadec.common.errors import run_main
from megadec.engine.command import seq2seq

if __name__ == "__main__":
    run_main(seq2seq)
