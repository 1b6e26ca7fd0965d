"""Labelled texts with changed copies, for small training sets: words deleted, swapped, replaced by near ones, texts of
one label joined.

    python tools/augment.py --input train.txt --output train-augmented.jsonl --augment.copies 16 \
        --augment.synonyms 0.6 --augment.vectors vectors/news [--augment.mixing 0.5] [--augment.swap 0.1]
        [--augment.deletion 0.1] [--seed 0]

In: labelled texts as launch/finetune.py reads them, and word vectors (tools/word_vectors.py) for synonyms. Out: JSON
lines, counts on standard output. launch/finetune.py makes its copies itself: --data.augment.copies 16 and so on.
"""

from megadec.common.errors import run_main
from megadec.finetune.augment_command import main

if __name__ == "__main__":
    run_main(main)
