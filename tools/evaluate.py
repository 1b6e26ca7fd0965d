"""Measure a model on held-out data, as JSON: what is measured depends on what the model is.

    python tools/evaluate.py --model exports/NAME-hf --data shards/wiki-test shards/news-test     # bits per character
    python tools/evaluate.py --model runs/NAME --data s3://bucket/held-out/wiki --cache.folder /data/shards  # the same
    python tools/evaluate.py --model runs/thucnews --data titles/dev.txt --confusion matrix.png   # accuracy, F1, matrix
    python tools/evaluate.py --model runs/translate [--data pairs.txt]                            # BLEU

In: a run, a checkpoint, a megadec or a Hugging Face folder, of a language model a GGUF or ONNX folder too, and held-out
data: folders of shards or their addresses for a language model, a file or folder of labelled texts for a classifier,
one or two files of pairs for an encoder-decoder.
Out: JSON on standard output, and in `--output`. `--help` lists the options by kind of model, `--model PATH --help`
those for one.
"""

from megadec.common.errors import run_main
from megadec.finetune.commands import evaluate

if __name__ == "__main__":
    run_main(evaluate)
