"""Label texts with finished classifiers, for another one to learn from (`data.soft` of launch/finetune.py).

    python tools/label.py --models runs/thucnews_full_0 runs/thucnews_full_1 --input titles.jsonl \
        --output soft.jsonl [--least_confidence 0.5]

In: one or several classifiers of the same labels, and texts. Out: a JSON line a text with the mean probability of each
label, and counts on standard output.
"""

from megadec.common.errors import run_main
from megadec.finetune.commands import label

if __name__ == "__main__":
    run_main(label)
