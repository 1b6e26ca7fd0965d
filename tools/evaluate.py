"""Score a model on held-out shards: bits per character and perplexity by data set, as JSON.

    python tools/evaluate.py --model exports/NAME-hf --data shards/wiki-test shards/news-test [--output scores.json]

In: a run, a checkpoint, a megadec or a Hugging Face folder, and folders of shards. Out: JSON on standard output, and in
`--output`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.common.files import write_json
from megadec.export.score import ScoreOptions, score


def main(argv: Sequence[str]) -> None:
    """Parse, score, print."""
    options = parse(ScoreOptions, argv, description="Score a model on held-out shards.")
    result = score(options)
    if options.output is not None:
        write_json(options.output, result)
    print(json.dumps(result, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    run_main(main)
