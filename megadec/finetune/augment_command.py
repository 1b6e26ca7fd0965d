"""The command augment: labelled texts in, the same with changed copies out, for classifiers that are trained elsewhere.

Fine-tuning makes its copies itself (`data.augment`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megadec.common.config import parse
from megadec.common.errors import ConfigError
from megadec.common.files import whole_file
from megadec.corpus.sources.reading import ReadOptions
from megadec.finetune.augment import AugmentOptions, augmented
from megadec.finetune.examples import LabelledOptions, read_labelled


@dataclass(frozen=True, kw_only=True)
class AugmentFileOptions:
    """Labelled texts, and where they go with their copies.

    Attributes:
        input: a file or folder of labelled texts, as fine-tuning reads them. Never what measures.
        output: the .jsonl file, new: `text`, `label`, and `copy`: 0 for the text itself, then 1, 2, ...
        source: the reader's name (thucnews, jsonl, comments, parquet, ...); empty: by the file's suffix.
        read: encoding and column names.
        seed: of all draws.
        augment: what is changed.
    """

    input: Path
    output: Path
    source: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)
    seed: int = 0
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        if not self.augment.copies:
            raise ConfigError("augment.copies=0: nothing is asked for; give 1 or more")


def augment_file(options: AugmentFileOptions) -> dict[str, int]:
    """Write `options.output`; returns how many texts there were, and what was done to make the copies.

    Raises ConfigError for a file that exists, and what `read_labelled` and `augmented` raise.
    """
    if options.output.exists():
        raise ConfigError(f"--output {options.output} exists already; choose another file, or remove it first")
    texts = list(read_labelled(options.input, LabelledOptions(source=options.source, read=options.read)))
    copies, counts = augmented([(one.text, one.label) for one in texts], options.augment, options.seed)
    with whole_file(options.output, "w") as stream:
        for one, some in zip(texts, copies, strict=True):
            for number, text in enumerate((one.text, *some)):
                row = {"text": text, "label": one.label, "copy": number}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"texts": len(texts), **counts}


def main(argv: Sequence[str]) -> None:
    """Write what the command line asks for; counts on standard output, as JSON."""
    print(json.dumps(augment_file(parse(AugmentFileOptions, argv, description="Labelled texts with changed copies."))))
