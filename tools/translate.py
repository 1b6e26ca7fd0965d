"""Translate texts with a trained encoder-decoder, or measure its BLEU on pairs; JSON on standard output.

    python tools/translate.py --model runs/NAME --input "How are you?" [--beam 4]
    python tools/translate.py --model runs/NAME --pairs pairs/cmn.txt [--pairs FILE FILE] [--part held_out] [--most 500]

What is held out is chosen as in training, by the fraction that the checkpoint names; `--part all` measures every pair
of another file.
"""

from megadec.common.errors import run_main
from megadec.finetune.commands import translate

if __name__ == "__main__":
    run_main(translate)
