"""Train an encoder-decoder on pairs.

deepspeed launch/seq2seq.py --deepspeed ds_configs/zero3.json --config launch/runs/translate_transformer.yaml
    [--section.key value ...]
"""

from __future__ import annotations

from collections.abc import Sequence

from megadec.common.errors import run_main


def main(argv: Sequence[str]) -> None:
    """Arguments in, `engine.pairs_run.open_pairs_run` and training, nothing out: results are in the run's folder."""
    from megadec.engine.command import train_command
    from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run

    train_command(argv, PairsRun, open_pairs_run, description=__doc__ or "", program="launch/seq2seq.py")


if __name__ == "__main__":
    run_main(main)
