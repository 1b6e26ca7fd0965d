"""Train an encoder-decoder on pairs.

deepspeed launch/seq2seq.py --deepspeed ds_configs/zero3.json --config launch/runs/translate_transformer.yaml
    [--section.key value ...]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from megadec.common.config import parse, take_options
from megadec.common.errors import ConfigError, MegadecError, run_main
from megadec.common.ranks import is_first

FIRST_SPEAKS_SECONDS = 20.0


def main(argv: Sequence[str]) -> None:
    """Arguments in, `megadec.engine.loop.train_opened`, nothing out: results are in the run's folder."""
    options, rest = take_options(argv, ("deepspeed", "local_rank"))  # the launcher passes --local_rank
    try:
        from megadec.engine.loop import train_opened
        from megadec.engine.pairs_run import PairsRun, open_pairs_run

        run = parse(PairsRun, rest, description=__doc__ or "", program="launch/seq2seq.py")
        if "deepspeed" not in options:
            raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
        train_opened(open_pairs_run(run, Path(options["deepspeed"])))
    except MegadecError:
        if not is_first():
            # Rank 0 has met the same error and says it; the launcher then ends this process. If it has not, we speak.
            time.sleep(FIRST_SPEAKS_SECONDS)
        raise


if __name__ == "__main__":
    run_main(main)
